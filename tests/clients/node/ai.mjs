// Vercel's AI SDK: text, a tool's round trip in steps, a stream, an object of a schema, and a second turn with its history, by Responses or by Chat Completions; prints what came, as JSON.
import { createOpenAI } from '@ai-sdk/openai';
import { generateText, Output, stepCountIs, streamText, tool } from 'ai';
import { z } from 'zod';

const [baseURL, name, api] = process.argv.slice(2);
const openai = createOpenAI({ baseURL, apiKey: 'sk-dummy' });
const model = api === 'chat' ? openai.chat(name) : openai.responses(name);
const asked = [];
const tools = {
  get_weather: tool({
    description: 'Weather of a city.',
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => (asked.push(city), 'sunny at 21 degrees'),
  }),
};
const once = ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? 'required' : 'auto' });
const question = { model, tools, prompt: 'What is the weather in Paris?', stopWhen: stepCountIs(3), prepareStep: once, maxRetries: 0 };

const whole = await generateText(question);
const streaming = streamText(question);
let streamed = '';
for await (const piece of streaming.textStream) streamed += piece;
const schema = z.object({ name: z.string() });
const { output } = await generateText({ model, prompt: 'Who?', output: Output.object({ schema }), maxRetries: 0 });
// Of what a response has said, and what is stored, it sends the id alone.
const named = { role: 'user', content: 'My name is Ada.' };
const first = await generateText({ model, messages: [named], maxRetries: 0 });
const messages = [named, ...first.response.messages, { role: 'user', content: 'What is my name?' }];
const second = await generateText({ model, messages, maxRetries: 0 });
const references = JSON.stringify(second.request.body).split('item_reference').length - 1;
console.log(
  JSON.stringify({ asked: asked.length, said: whole.text, steps: whole.steps.length, finish: whole.finishReason, inputTokens: whole.usage.inputTokens, streamed, object: output, again: second.text, references }),
);
