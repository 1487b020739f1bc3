//! Conversations: made, changed, forgotten, and responses that are made in them; and that nobody else can.

use crate::support::{Gateway, Reply, simulated, text};
use serde_json::{Value, json};

const OTHER: &str = "authorization: Bearer other\r\n";

async fn begin(gateway: &Gateway, body: &Value) -> (Value, String) {
    let made = gateway.post("/v1/conversations", body).await.json();
    let path = format!("/v1/conversations/{}", made["id"].as_str().unwrap());
    (made, path)
}

async fn delete(gateway: &Gateway, path: &str) -> Reply {
    gateway.send("DELETE", path, "", b"").await
}

fn contents(list: &Value) -> Vec<String> {
    let items = list["data"].as_array().unwrap().iter();
    items.map(|item| item["content"][0]["text"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_conversation_is_made_changed_and_forgotten() {
    let gateway = Gateway::start(simulated()).await;
    let (made, path) = begin(&gateway, &json!({"metadata": {"a": "b"}})).await;
    assert_eq!((&made["object"], &made["metadata"]), (&json!("conversation"), &json!({"a": "b"})));
    assert_eq!(gateway.get(&path).await.json(), made);
    let changed = gateway.post(&path, &json!({"metadata": {"c": "d"}})).await.json();
    assert_eq!((&changed["id"], &changed["metadata"]), (&made["id"], &json!({"c": "d"})));
    let gone = delete(&gateway, &path).await.json();
    assert_eq!(gone, json!({"id": made["id"], "object": "conversation.deleted", "deleted": true}));
    assert_eq!(gateway.get(&path).await.status, 404);
    assert_eq!(begin(&gateway, &json!({})).await.0["metadata"], json!({}));
}

#[tokio::test]
async fn items_are_added_listed_found_and_forgotten_by_their_ids() {
    let gateway = Gateway::start(simulated()).await;
    let first = json!({"items": [{"role": "user", "content": "one"}]});
    let (_, path) = begin(&gateway, &first).await;
    let more =
        json!({"items": [{"role": "user", "content": "two"}, {"id": "msg_mine", "role": "user", "content": "two"}]});
    let added = gateway.post(&format!("{path}/items"), &more).await.json();
    assert_eq!((contents(&added), &added["last_id"]), (vec!["two".to_owned(), "two".to_owned()], &json!("msg_mine")));
    let list = gateway.get(&format!("{path}/items?order=asc")).await.json();
    assert_eq!(contents(&list), ["one", "two", "two"]);
    let page = gateway.get(&format!("{path}/items?limit=1&after=msg_mine")).await.json();
    assert_eq!((contents(&page), &page["has_more"]), (vec!["two".to_owned()], &json!(true)));
    let reference = json!({"items": [{"type": "item_reference", "id": "msg_mine"}]});
    let refused = gateway.post(&format!("{path}/items"), &reference).await;
    assert_eq!(
        (refused.status, &refused.json()["error"]["param"]),
        (400, &json!("items[0]")),
        "items, and no references"
    );
    for item in list["data"].as_array().unwrap() {
        let item_path = format!("{path}/items/{}", item["id"].as_str().unwrap());
        assert_eq!(gateway.get(&item_path).await.json(), *item, "by the id that the list shows");
        assert_eq!(delete(&gateway, &item_path).await.json()["object"], "conversation");
        assert_eq!(gateway.get(&item_path).await.status, 404);
    }
    assert_eq!(contents(&gateway.get(&format!("{path}/items")).await.json()), Vec::<String>::new());
}

#[tokio::test]
async fn a_response_is_made_in_a_conversation_and_adds_to_it() {
    let gateway = Gateway::start(simulated()).await;
    let (made, path) = begin(&gateway, &json!({"items": [{"role": "user", "content": "My name is Ada."}]})).await;
    let ask = json!({"model": "demo", "input": "What is my name?", "conversation": made["id"]});
    let response = gateway.post("/v1/responses", &ask).await.json();
    assert!(text(&response).contains("Ada"), "{response}");
    assert_eq!(response["conversation"], json!({"id": made["id"]}));
    let list = gateway.get(&format!("{path}/items?order=asc")).await.json();
    assert_eq!(contents(&list), ["My name is Ada.".to_owned(), "What is my name?".to_owned(), text(&response)]);
    assert!(list["data"].as_array().unwrap().iter().all(|item| item["id"].is_string()), "{list}");
    // By an object, in the background, and with what was there forgotten: the answer changes with the list.
    let name = list["data"][0]["id"].as_str().unwrap();
    delete(&gateway, &format!("{path}/items/{name}")).await;
    let ask = json!({"model": "demo", "input": "repeat: on", "conversation": {"id": made["id"]}, "background": true});
    let queued = gateway.post("/v1/responses", &ask).await.json();
    let response = crate::background::ended(&gateway, &queued["id"]).await;
    assert_eq!((text(&response).as_str(), &response["conversation"]["id"]), ("on", &made["id"]));
    let list = gateway.get(&format!("{path}/items?order=asc")).await.json();
    assert_eq!(contents(&list)[2..], ["repeat: on", "on"]);
    let input = gateway.get(&format!("/v1/responses/{}/input_items", queued["id"].as_str().unwrap())).await.json();
    assert_eq!(input["data"].as_array().unwrap().len(), 3, "{input}");
}

#[tokio::test]
async fn a_body_that_would_say_nothing_may_be_left_out() {
    let gateway = Gateway::start(simulated()).await;
    let reply = gateway.send("POST", "/v1/conversations", "", b"").await;
    assert_eq!((reply.status, &reply.json()["object"]), (200, &json!("conversation")), "{reply:?}");
    assert_eq!(reply.json()["metadata"], json!({}));
    let wrong = gateway.send("POST", "/v1/conversations", "", b" ").await;
    assert_eq!((wrong.status, &wrong.json()["error"]["code"]), (400, &json!("invalid_json")));
}

#[tokio::test]
async fn a_compaction_is_kept_for_the_caller_that_it_was_made_for() {
    let gateway = Gateway::start(simulated()).await;
    let window = gateway.post("/v1/responses/compact", &json!({"model": "demo", "input": "My name is Ada."})).await;
    let items = json!({"items": window.json()["output"]});
    let theirs = gateway.send("POST", "/v1/conversations", OTHER, items.to_string().as_bytes()).await;
    assert_eq!((theirs.status, &theirs.json()["error"]["param"]), (400, &json!("items[1].encrypted_content")));
    let (made, _) = begin(&gateway, &items).await;
    let ask = json!({"model": "demo", "input": "What is my name?", "conversation": made["id"]});
    assert_eq!(gateway.post("/v1/responses", &ask).await.status, 200);
}

#[tokio::test]
async fn what_is_wrong_is_named_and_anothers_is_not_there() {
    let gateway = Gateway::start(simulated()).await;
    let (made, path) = begin(&gateway, &json!({})).await;
    let many = vec![json!({"role": "user", "content": "x"}); 21];
    let ask = |more: Value| {
        let mut ask = json!({"model": "demo", "input": "x", "conversation": made["id"]});
        ask.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ask
    };
    let item = |item: Value| json!({"items": [item]});
    for (path, body, param) in [
        ("/v1/conversations", item(json!({"type": "nonsense"})), "items[0].type"),
        (
            "/v1/conversations",
            item(json!({"type": "compaction", "encrypted_content": "garbage"})),
            "items[0].encrypted_content",
        ),
        (
            &format!("{path}/items"),
            item(json!({"type": "reasoning", "summary": [], "encrypted_content": "garbage"})),
            "items[0].encrypted_content",
        ),
        (&format!("{path}/items"), item(json!({"type": "compaction_trigger"})), "items[0]"),
        (
            "/v1/conversations",
            json!({"items": [{"type": "compaction_trigger"}, {"role": "user", "content": "x"}]}),
            "items[0]",
        ),
        ("/v1/conversations", json!({"items": [{"role": "user", "content": "x", "type": null}]}), "items[0].type"),
        ("/v1/conversations", json!({"items": many}), "items"),
        ("/v1/conversations", json!({"metadata": {"a": 1}}), "metadata.a"),
        ("/v1/conversations", json!({"metadata": {"a": "x".repeat(513)}}), "metadata"),
        (&path, json!({}), "metadata"),
        (&format!("{path}/items"), json!({}), "items"),
        ("/v1/responses", ask(json!({"store": false})), "store"),
        ("/v1/responses", ask(json!({"previous_response_id": "resp_1"})), "previous_response_id"),
        ("/v1/responses", ask(json!({"conversation": 1})), "conversation"),
    ] {
        let reply = gateway.post(path, &body).await;
        assert_eq!((reply.status, reply.json()["error"]["param"].as_str()), (400, Some(param)), "{path} {reply:?}");
    }
    let unknown = gateway.post("/v1/responses", &ask(json!({"conversation": "conv_unknown"}))).await;
    assert_eq!((unknown.status, unknown.json()["error"]["param"].as_str()), (404, Some("conversation")));
    let item = gateway.post(&format!("{path}/items"), &json!({"items": [{"role": "user", "content": "x"}]})).await;
    let item = format!("{path}/items/{}", item.json()["first_id"].as_str().unwrap());
    let added = json!({"items": [{"role": "user", "content": "x"}]}).to_string();
    for (method, path, body) in [
        ("GET", path.clone(), ""),
        ("POST", path.clone(), "{\"metadata\":{}}"),
        ("DELETE", path.clone(), ""),
        ("GET", format!("{path}/items"), ""),
        ("POST", format!("{path}/items"), &added),
        ("GET", item.clone(), ""),
        ("DELETE", item.clone(), ""),
        ("POST", "/v1/responses".to_owned(), &ask(json!({})).to_string()),
    ] {
        let theirs = gateway.send(method, &path, OTHER, body.as_bytes()).await;
        assert_eq!(theirs.status, 404, "{method} {path}");
    }
    assert_eq!(gateway.get(&item).await.status, 200, "its owner still has it");
}
