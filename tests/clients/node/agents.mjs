// OpenAI's Agents SDK for JavaScript: an agent asks its tool and answers, whole and streamed, over HTTP or the WebSocket; prints what came, as JSON.
import { Agent, OpenAIProvider, Runner, setTracingDisabled, tool } from '@openai/agents';
import WebSocket from 'ws';
import { z } from 'zod';

// Node 20 has none of its own.
globalThis.WebSocket ??= WebSocket;
setTracingDisabled(true);

const [baseURL, model, transport] = process.argv.slice(2);
const modelProvider = new OpenAIProvider({ apiKey: 'sk-dummy', baseURL, useResponses: true, useResponsesWebSocket: transport === 'websocket' });
const runner = new Runner({ modelProvider, tracingDisabled: true });
const asked = [];
const agent = new Agent({
  name: 'weatherman',
  instructions: 'Ask the tool.',
  model,
  modelSettings: { toolChoice: 'required' },
  tools: [
    tool({
      name: 'get_weather',
      description: 'Weather of a city.',
      parameters: z.object({ city: z.string() }),
      execute: ({ city }) => (asked.push(city), 'sunny at 21 degrees'),
    }),
  ],
});

const whole = await runner.run(agent, 'What is the weather in Paris?', { maxTurns: 4 });
const streamed = await runner.run(agent, 'What is the weather in Paris?', { maxTurns: 4, stream: true });
let pieces = '';
for await (const piece of streamed.toTextStream()) pieces += piece;
await streamed.completed;
await modelProvider.close();
console.log(JSON.stringify({ asked: asked.length, said: whole.finalOutput, streamed: pieces }));
