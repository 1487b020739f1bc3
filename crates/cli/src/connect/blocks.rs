//! The blocks that `flashlane connect` prints: each is whole, runs as it is, and names the address and the model. Knows
//! nothing of who asked.

use super::Server;

/// Python: the `openai` package over the WebSocket, then over plain HTTP.
pub fn python(server: &Server) -> String {
    let Server { address, model, cacert } = server;
    let trust =
        cacert.as_ref().map(|file| format!("os.environ[\"SSL_CERT_FILE\"] = \"{file}\"  # the gateway's authority\n"));
    let trust = trust.unwrap_or_default();
    format!(
        r#"# pip install "openai[realtime]"
import os
from openai import OpenAI

{trust}client = OpenAI(
    base_url="{http}",
    api_key=os.environ.get("FLASHLANE_API_KEY", "none"),  # a gateway on loopback asks for no key
)
model = "{model}"

# The WebSocket: one connection, and each turn sends only what is new.
with client.responses.connect() as connection:
    previous = None
    for question in ["My name is Ada. Say hello.", "What is my name?"]:
        turn = {{"model": model, "input": question, "store": False}}
        if previous:
            turn["previous_response_id"] = previous
        connection.response.create(**turn)
        for event in connection:
            if event.type == "response.output_text.delta":
                print(event.delta, end="", flush=True)
            elif event.type == "response.completed":
                previous = event.response.id
                break
            elif event.type in ("response.failed", "response.incomplete", "error"):
                raise SystemExit(event)
        print()

# Plain HTTP.
print(client.responses.create(model=model, input="Say hello.").output_text)
"#,
        http = address.http()
    )
}

/// Node: the `openai` package, streaming over HTTP, then over the WebSocket.
pub fn node(server: &Server) -> String {
    let Server { address, model, cacert } = server;
    let trust = cacert.as_ref().map(|file| format!("NODE_EXTRA_CA_CERTS=\"{file}\" ")).unwrap_or_default();
    format!(
        r#"// npm install openai ws, save as hello.mjs, then: {trust}node hello.mjs
import OpenAI from "openai";
import {{ ResponsesWS }} from "openai/resources/responses/ws";

const client = new OpenAI({{
  baseURL: "{http}",
  apiKey: process.env.FLASHLANE_API_KEY ?? "none", // a gateway on loopback asks for no key
}});
const model = "{model}";

// HTTP, streaming.
const stream = await client.responses.create({{ model, input: "Say hello.", stream: true }});
for await (const event of stream) {{
  if (event.type === "response.output_text.delta") process.stdout.write(event.delta);
}}
console.log();

// The WebSocket: one connection, and each turn sends only what is new.
const socket = new ResponsesWS(client);
const questions = ["My name is Ada. Say hello.", "What is my name?"];
const ask = (previous_response_id) =>
  socket.send({{ type: "response.create", model, input: questions.shift(), store: false, previous_response_id }});
socket.on("response.output_text.delta", (event) => process.stdout.write(event.delta));
socket.on("response.completed", (event) => {{
  console.log();
  if (questions.length > 0) ask(event.response.id);
  else socket.close();
}});
socket.on("error", (error) => {{
  console.error(error);
  socket.close();
}});
ask();
"#,
        http = address.http()
    )
}

/// curl: server-sent events, and the list of models.
pub fn curl(server: &Server) -> String {
    let Server { address, model, cacert } = server;
    let trust = cacert.as_ref().map(|file| format!(" --cacert \"{file}\"")).unwrap_or_default();
    format!(
        r#"# One turn, streamed as server-sent events. A gateway on loopback asks for no key.
curl -N{trust} {http}/responses \
  -H "Authorization: Bearer ${{FLASHLANE_API_KEY:-none}}" \
  -H "Content-Type: application/json" \
  -d '{{"model": "{model}", "input": "Say hello.", "stream": true}}'

# The models.
curl{trust} {http}/models -H "Authorization: Bearer ${{FLASHLANE_API_KEY:-none}}"
"#,
        http = address.http()
    )
}
