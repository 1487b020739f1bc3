//! What is asked of a stored response: retrieve, delete, its input items; and that nobody else can.

use crate::support::{Gateway, simulated, text};
use serde_json::{Value, json};

const OTHER: &str = "authorization: Bearer other\r\n";

async fn stored(gateway: &Gateway, more: Value) -> Value {
    let mut request = json!({"model": "demo", "input": "repeat: kept"});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    gateway.post("/v1/responses", &request).await.json()
}

#[tokio::test]
async fn what_is_retrieved_is_what_was_made() {
    let gateway = Gateway::start(simulated()).await;
    let made = stored(&gateway, json!({})).await;
    let path = format!("/v1/responses/{}", made["id"].as_str().unwrap());
    let reply = gateway.get(&format!("{path}?include[]=reasoning.encrypted_content")).await;
    assert_eq!((reply.status, reply.json()), (200, made));
    let reply = gateway.get(&format!("{path}?stream=true")).await;
    assert_eq!(reply.status, 404, "it was not made in the background");
}

#[tokio::test]
async fn what_is_deleted_is_gone_and_its_children_stay() {
    let gateway = Gateway::start(simulated()).await;
    let made = stored(&gateway, json!({})).await;
    let id = made["id"].as_str().unwrap();
    let child = stored(&gateway, json!({"previous_response_id": id, "input": "repeat: and this"})).await;
    let path = format!("/v1/responses/{id}");
    let reply = gateway.send("DELETE", &path, "", b"").await;
    assert_eq!(reply.json(), json!({"id": id, "object": "response.deleted", "deleted": true}));
    for (method, path) in [("GET", path.clone()), ("DELETE", path.clone()), ("GET", format!("{path}/input_items"))] {
        let reply = gateway.send(method, &path, "", b"").await;
        assert_eq!(reply.status, 404, "{method} {path}");
        assert_eq!(reply.json()["error"]["message"], format!("Response with id '{id}' not found."));
        assert_eq!(reply.json()["error"]["code"], Value::Null);
    }
    let gone = gateway.post("/v1/responses", &json!({"model": "demo", "input": "x", "previous_response_id": id})).await;
    assert_eq!(gone.json()["error"]["code"], "previous_response_not_found");
    let went_on = stored(&gateway, json!({"previous_response_id": child["id"], "input": "repeat: on"})).await;
    assert_eq!(text(&went_on), "on");
}

#[tokio::test]
async fn an_item_is_referred_to_by_its_owner_alone() {
    let gateway = Gateway::start(simulated()).await;
    let named = stored(&gateway, json!({"input": "repeat: my name is Ada"})).await;
    let item = &named["output"][0]["id"];
    let request = |id: &Value| {
        let input = json!([{"type": "item_reference", "id": id}, {"role": "user", "content": "repeat: known"}]);
        json!({"model": "demo", "input": input}).to_string()
    };
    let made = gateway.send("POST", "/v1/responses", "", request(item).as_bytes()).await.json();
    assert_eq!(text(&made), "known");
    let listed = format!("/v1/responses/{}/input_items?order=asc", made["id"].as_str().unwrap());
    let first = gateway.get(&listed).await.json()["data"][0].clone();
    assert_eq!(
        (&first["id"], &first["content"][0]["text"]),
        (item, &json!("my name is Ada")),
        "the item itself is kept"
    );
    let refused = [("", json!("msg_unknown")), (OTHER, item.clone()), (OTHER, json!("msg_unknown"))];
    for (key, id) in refused {
        let reply = gateway.send("POST", "/v1/responses", key, request(&id).as_bytes()).await;
        let message = format!("Item with id '{}' not found.", id.as_str().unwrap());
        let expected = json!({"message": message, "type": "invalid_request_error", "param": "input", "code": null});
        assert_eq!((reply.status, &reply.json()["error"]), (404, &expected), "another's is nobody's");
    }
    // Whoever is gone takes its items along, but for those that others have.
    let path = format!("/v1/responses/{}", made["id"].as_str().unwrap());
    for path in [format!("/v1/responses/{}", named["id"].as_str().unwrap()), path] {
        assert_eq!(gateway.send("POST", "/v1/responses", "", request(item).as_bytes()).await.status, 200);
        assert_eq!(gateway.send("DELETE", &path, "", b"").await.status, 200);
    }
}

#[tokio::test]
async fn input_items_are_listed_in_pages_of_either_order() {
    let gateway = Gateway::start(simulated()).await;
    let first = stored(&gateway, json!({"input": [
        {"role": "user", "content": "one"},
        {"type": "message", "id": "msg_mine", "role": "user", "content": [{"type": "input_text", "text": "repeat: two"}]},
    ]}))
    .await;
    let second = stored(&gateway, json!({"previous_response_id": first["id"], "input": "repeat: three"})).await;
    let list = |query: &str| {
        let path = format!("/v1/responses/{}/input_items{query}", second["id"].as_str().unwrap());
        let gateway = &gateway;
        async move { gateway.get(&path).await }
    };
    let texts = |page: &Value| -> Vec<String> {
        let items = page["data"].as_array().unwrap().iter();
        items.map(|item| item["content"][0]["text"].as_str().unwrap().to_owned()).collect()
    };
    let whole = list("").await.json();
    assert_eq!(texts(&whole), ["repeat: three", "two", "repeat: two", "one"], "newest first, the answer between");
    assert_eq!((&whole["object"], &whole["has_more"]), (&json!("list"), &json!(false)));
    assert_eq!(whole["data"][2]["id"], "msg_mine");
    assert!(whole["data"].as_array().unwrap().iter().all(|item| item["id"].is_string() && item["type"] == "message"));
    assert_eq!(texts(&list("?order=asc&limit=2").await.json()), ["one", "repeat: two"]);
    let (mut walked, mut after) = (Vec::new(), String::new());
    loop {
        let page = list(&format!("?limit=1{after}")).await.json();
        walked.extend(texts(&page));
        after = format!("&after={}", page["last_id"].as_str().unwrap());
        if page["has_more"] == false {
            break;
        }
    }
    assert_eq!(walked, texts(&whole), "item by item, each once");
    for bad in ["?limit=0", "?limit=101", "?limit=x", "?order=up", "?after=msg_unknown"] {
        assert_eq!(list(bad).await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn calls_and_outputs_are_listed_with_their_status() {
    let gateway = Gateway::start(simulated()).await;
    let made = stored(
        &gateway,
        json!({"input": [
            {"role": "user", "content": "weather?"},
            {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}", "status": "incomplete"},
            {"type": "function_call", "call_id": "call_2", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_2", "output": "sunny", "status": null},
            {"type": "custom_tool_call", "call_id": "call_3", "name": "c", "input": ""},
            {"type": "custom_tool_call_output", "call_id": "call_3", "output": "done"},
            {"type": "reasoning", "summary": []},
        ]}),
    )
    .await;
    let page =
        gateway.get(&format!("/v1/responses/{}/input_items?order=asc", made["id"].as_str().unwrap())).await.json();
    let status = |item: &Value| item["status"].as_str().map(str::to_owned);
    let statuses: Vec<_> = page["data"].as_array().unwrap().iter().map(status).collect();
    let completed = || Some("completed".to_owned());
    let cut = Some("incomplete".to_owned());
    assert_eq!(statuses, [completed(), cut, completed(), completed(), completed(), completed(), None]);
}

#[tokio::test]
async fn an_item_that_is_nested_deeper_than_trees_go_is_listed_as_it_came() {
    let gateway = Gateway::start(simulated()).await;
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let item = format!(r#"{{"role":"user","content":"repeat: kept","own":{deep}}}"#);
    let body = format!(r#"{{"model":"demo","input":[{item}]}}"#);
    let made = gateway.send("POST", "/v1/responses", "", body.as_bytes()).await.json();
    let path = format!("/v1/responses/{}/input_items", made["id"].as_str().unwrap());
    let listed = String::from_utf8(gateway.get(&path).await.body).unwrap();
    assert!(listed.contains(&deep) && listed.contains(r#""type":"input_text""#), "{listed}");
    let body = format!(r#"{{"items":[{item}]}}"#);
    let conversation = gateway.post("/v1/conversations", &json!({})).await.json();
    let path = format!("/v1/conversations/{}/items", conversation["id"].as_str().unwrap());
    let added = gateway.send("POST", &path, "", body.as_bytes()).await;
    let listed = gateway.get(&path).await;
    for reply in [added, listed] {
        let listed = String::from_utf8(reply.body).unwrap();
        assert!(listed.contains(&deep) && listed.contains(r#""first_id":"msg_"#), "{listed}");
    }
}

#[tokio::test]
async fn another_key_finds_what_an_unknown_id_finds() {
    let gateway = Gateway::start(simulated()).await;
    let made = stored(&gateway, json!({})).await;
    let id = made["id"].as_str().unwrap();
    for (method, after) in [("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")] {
        let theirs = gateway.send(method, &format!("/v1/responses/{id}{after}"), OTHER, b"").await;
        let unknown = gateway.send(method, &format!("/v1/responses/resp_unknown{after}"), "", b"").await;
        assert_eq!((theirs.status, unknown.status), (404, 404), "{method} {after}");
        let said = |reply: &crate::support::Reply, id: &str| reply.json().to_string().replace(id, "ID");
        assert_eq!(said(&theirs, id), said(&unknown, "resp_unknown"));
    }
    let body = json!({"model": "demo", "input": "x", "previous_response_id": id}).to_string();
    let chained = gateway.send("POST", "/v1/responses", OTHER, body.as_bytes()).await;
    assert_eq!(chained.json()["error"]["code"], "previous_response_not_found");
    assert_eq!(gateway.get(&format!("/v1/responses/{id}")).await.status, 200, "its owner still has it");
}

#[tokio::test]
async fn a_response_that_is_not_stored_is_not_there_and_a_synchronous_one_cannot_be_cancelled() {
    let gateway = Gateway::start(simulated()).await;
    let made = stored(&gateway, json!({"store": false})).await;
    assert_eq!(gateway.get(&format!("/v1/responses/{}", made["id"].as_str().unwrap())).await.status, 404);
    let made = stored(&gateway, json!({})).await;
    let cancel = gateway.send("POST", &format!("/v1/responses/{}/cancel", made["id"].as_str().unwrap()), "", b"").await;
    assert_eq!(cancel.status, 400);
}
