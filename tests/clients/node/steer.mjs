// openai-node's ResponsesWS: a response is steered while it works, and the next one is interrupted; prints what came, as JSON. The package has no types for either: it
// sends what it is given, and tells of every event.
import OpenAI from 'openai';
import { ResponsesWS } from 'openai/resources/responses/ws';

const [baseURL, model] = process.argv.slice(2);
const socket = new ResponsesWS(new OpenAI({ baseURL, apiKey: 'sk-dummy', maxRetries: 0, timeout: 20_000 }));
const create = () => socket.send({ type: 'response.create', model, input: 'count from 1 to 2000', store: false });
const kinds = [];
const announced = [];
let told = 0;

socket.on('event', (event) => {
  if (kinds.at(-1) !== event.type) kinds.push(event.type);
  if (event.type === 'response.created') announced.push(event.response.id);
  // The first response is steered, its successor completes, the third is interrupted.
  if (event.type === 'response.output_text.delta' && told < announced.length) {
    told = announced.length;
    const running = announced.at(-1);
    if (told === 1) socket.send({ type: 'response.steer', previous_response_id: running, input: 'repeat: steered by node' });
    if (told === 3) socket.send({ type: 'response.interrupt', response_id: running });
  }
  if (event.type === 'response.completed') {
    const { previous_response_id, output } = event.response;
    socket.successor = { said: output.at(-1).content[0].text, follows: previous_response_id === announced[0] };
    create();
  }
  if (event.type === 'response.incomplete' && announced.length === 3) {
    console.log(JSON.stringify({ kinds, ...socket.successor, reason: event.response.incomplete_details.reason }));
    socket.close();
  }
});
socket.on('error', (error) => {
  console.error(error);
  process.exit(1);
});
create();
