// openai-node: a tool's round trip over HTTP, as a stream and over the WebSocket; prints what came, as JSON.
import OpenAI from 'openai';
import { ResponsesWS } from 'openai/resources/responses/ws';

const [baseURL, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: 'sk-dummy', maxRetries: 0, timeout: 20_000 });
const input = [{ role: 'user', content: 'What is the weather in Paris?' }];
const tools = [
  { type: 'function', name: 'get_weather', strict: true, parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'], additionalProperties: false } },
];
const asking = { model, input, tools, tool_choice: { type: 'function', name: 'get_weather' } };
const outputOf = (call) => ({ type: 'function_call_output', call_id: call.call_id, output: 'sunny at 21 degrees' });
const callIn = (response) => response.output.find((item) => item.type === 'function_call');

async function overHttp() {
  const first = await client.responses.create(asking);
  const call = callIn(first);
  const second = await client.responses.create({ model, input: [outputOf(call)], tools, previous_response_id: first.id });
  return { called: call.name, arguments: JSON.parse(call.arguments), said: second.output_text };
}

async function overStream() {
  const stream = client.responses.stream(asking);
  let pieces = '';
  stream.on('response.function_call_arguments.delta', (event) => (pieces += event.delta));
  const first = await stream.finalResponse();
  const call = callIn(first);
  const second = await client.responses.stream({ model, input: [...input, call, outputOf(call)], tools }).finalResponse();
  return { called: call.name, arguments: JSON.parse(pieces), said: second.output_text };
}

async function overWebSocket() {
  const socket = new ResponsesWS(client);
  const turn = (request) =>
    new Promise((resolve, reject) => {
      const done = ({ response }) => (socket.off('response.completed', done), resolve(response));
      socket.on('response.completed', done);
      socket.once('error', reject);
      socket.send({ type: 'response.create', store: false, ...request });
    });
  const first = await turn(asking);
  const call = callIn(first);
  const second = await turn({ model, input: [outputOf(call)], tools, previous_response_id: first.id });
  socket.close();
  return { called: call.name, arguments: JSON.parse(call.arguments), said: second.output.at(-1).content[0].text };
}

console.log(JSON.stringify({ http: await overHttp(), stream: await overStream(), websocket: await overWebSocket() }));
