// openai-node compacts a conversation, and goes on from the window that it gets.
import OpenAI from "openai";

const [baseURL, model, text] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "sk-one", maxRetries: 0 });
const window = await client.responses.compact({ model, input: text });
const input = [...window.output, { role: "user", content: "And now?" }];
const answer = await client.responses.create({ model, input, store: false });
console.log(JSON.stringify([window.object, window.output.at(-1).type, answer.output_text]));
