//! Children of responses over real sockets: handed out, listed, cancelled, and joined to what goes on from their parents.

use crate::support::{Gateway, Reply, Socket, begun, exchange, kinds, simulated, soon, text, upstream};
use flashlane_backend::{EndpointConfig, Tier};
use flashlane_engine::{Settings, admission};
use flashlane_testkit::upstream::{Step, Upstream, chat_events, error, stream};
use serde_json::{Value, json};

const OTHER: &str = "authorization: Bearer other\r\n";
const CREATED: &str = "response.flashlane.child.created";
const JOINED: &str = "response.flashlane.child.joined";

fn allow(settings: &mut Settings) {
    settings.children_max = 4;
}

/// Two tiers: one that remembers what it was asked and says "yes", and one that children go to.
async fn two_tiers(children: EndpointConfig) -> (Upstream, Gateway) {
    let fast = Upstream::start(vec![[stream(&chat_events(&["yes"])), vec![Step::Again]].concat()]).await.unwrap();
    let latency = EndpointConfig { name: "wafer".to_owned(), tier: Tier::Latency, ..upstream(&fast.base_url()) };
    let children = EndpointConfig { name: "gpu".to_owned(), tier: Tier::Throughput, ..children };
    let endpoints = [latency, children];
    let gateway =
        Gateway::start_behind_with(&endpoints, admission::Settings::default(), |_, settings| allow(settings)).await;
    (fast, gateway)
}

/// Its first token comes a while after its parent has ended.
fn slow() -> EndpointConfig {
    EndpointConfig { first_token_ms: Some(300), ..simulated() }
}

fn create(more: &Value) -> Value {
    let mut create = json!({"type": "response.create", "model": "demo", "input": "hi", "store": false});
    create.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    create
}

fn delegate(inputs: &[(&str, &str)]) -> Value {
    let children: Vec<_> = inputs.iter().map(|(name, input)| json!({"name": name, "input": input})).collect();
    json!({"delegate": children})
}

fn children_of(events: &[Value], kind: &str) -> Vec<Value> {
    events.iter().filter(|event| event["type"] == kind).map(|event| event["child"].clone()).collect()
}

async fn get(gateway: &Gateway, path: &str) -> Reply {
    gateway.get(&format!("/v1/responses/{path}")).await
}

async fn listed(gateway: &Gateway, parent: &Value) -> Vec<Value> {
    let reply = get(gateway, &format!("{}/children", parent.as_str().unwrap())).await;
    assert_eq!(reply.status, 200, "{}", reply.json());
    reply.json()["data"].as_array().unwrap().clone()
}

/// Polls the list until all have ended.
async fn ended(gateway: &Gateway, parent: &Value) -> Vec<Value> {
    soon("the children to end", async {
        loop {
            let children = listed(gateway, parent).await;
            if children.iter().all(|child| child["status"] != "in_progress") {
                return children;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

/// What a scripted upstream was told last.
fn told(upstream: &Upstream) -> Vec<Value> {
    let body: Value = serde_json::from_slice(&upstream.seen().requests.last().unwrap().body).unwrap();
    body["messages"].as_array().unwrap().clone()
}

async fn turn(socket: &mut Socket, more: &Value) -> Vec<Value> {
    socket.turn(&create(more)).await
}

#[tokio::test]
async fn an_unstored_chain_hands_out_work_streams_on_and_has_the_results_in_a_later_input() {
    let (fast, gateway) = two_tiers(slow()).await;
    let mut socket = gateway.websocket().await;
    let asked = json!({"flashlane": delegate(&[("tests", "repeat: all green"), ("docs", "repeat: written")])});
    let events = turn(&mut socket, &asked).await;
    assert_eq!(kinds(&events)[..2], ["response.created", "response.in_progress"]);
    let created = children_of(&events, CREATED);
    assert_eq!(created.iter().map(|child| child["name"].clone()).collect::<Vec<_>>(), ["tests", "docs"]);
    let parent = events.last().unwrap()["response"]["id"].clone();
    let running = listed(&gateway, &parent).await;
    assert!(running.iter().all(|child| child["status"] == "in_progress"), "its parent did not wait: {running:?}");
    assert_eq!((&running[0]["id"], &running[0]["parent"]), (&created[0]["id"], &parent));

    let events = turn(&mut socket, &json!({"input": "two", "previous_response_id": parent})).await;
    assert!(children_of(&events, JOINED).is_empty());
    let second = events.last().unwrap()["response"]["id"].clone();
    let ended = ended(&gateway, &parent).await;
    assert!(ended.iter().all(|child| child["status"] == "completed"), "{ended:?}");

    let events = turn(&mut socket, &json!({"input": "three", "previous_response_id": second})).await;
    let joined = children_of(&events, JOINED);
    assert_eq!(joined.iter().map(|child| child["name"].clone()).collect::<Vec<_>>(), ["tests", "docs"]);
    let told = told(&fast);
    let roles: Vec<_> = told.iter().map(|message| message["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["user", "assistant", "user", "assistant", "user", "user", "user"]);
    assert!(told[4]["content"].as_str().unwrap().ends_with("has completed. Its result:\n\nall green"), "{told:?}");
    assert!(told[5]["content"].as_str().unwrap().ends_with("written") && told[6]["content"] == "three", "{told:?}");
    let third = events.last().unwrap()["response"]["id"].clone();
    let events = turn(&mut socket, &json!({"input": "four", "previous_response_id": third})).await;
    assert!(children_of(&events, JOINED).is_empty(), "once");
}

#[tokio::test]
async fn a_child_of_what_is_not_stored_is_shown_and_deleted_and_nobody_goes_on_from_it() {
    let (_fast, gateway) = two_tiers(simulated()).await;
    let mut socket = gateway.websocket().await;
    let events = turn(&mut socket, &json!({"flashlane": delegate(&[("a", "repeat: done")])})).await;
    let parent = events.last().unwrap()["response"]["id"].clone();
    let id = ended(&gateway, &parent).await[0]["id"].as_str().unwrap().to_owned();
    let response = get(&gateway, &id).await.json();
    assert_eq!((&response["status"], text(&response)), (&json!("completed"), "done".to_owned()));
    assert_eq!((&response["store"], &response["service_tier"]), (&json!(false), &json!("default")));
    assert_eq!(response["flashlane"]["child"], json!({"name": "a", "parent": parent}));
    let items = get(&gateway, &format!("{id}/input_items?order=asc")).await.json();
    let items: Vec<_> = items["data"].as_array().unwrap().iter().map(|item| &item["content"][0]["text"]).collect();
    assert_eq!(items, ["hi", "repeat: done"]);
    let next = json!({"model": "demo", "input": "and?", "previous_response_id": id});
    assert_eq!(gateway.post("/v1/responses", &next).await.status, 400, "it is in no store");
    let deleted = gateway.send("DELETE", &format!("/v1/responses/{id}"), "", b"").await;
    assert_eq!((deleted.status, get(&gateway, &id).await.status), (200, 404));
    let events = turn(&mut socket, &json!({"input": "two", "previous_response_id": parent})).await;
    assert!(children_of(&events, JOINED).is_empty(), "what was deleted joins nobody");
}

#[tokio::test]
async fn a_stored_chain_over_http_has_them_stored_and_joined_where_it_goes_on() {
    let (fast, gateway) = two_tiers(slow()).await;
    let post = |body: Value| {
        let gateway = &gateway;
        async move { gateway.post("/v1/responses", &body).await.json() }
    };
    let asked = json!({"model": "demo", "input": "hi", "flashlane": delegate(&[("a", "repeat: done")])});
    let parent = post(asked).await;
    let between = post(json!({"model": "demo", "input": "two", "previous_response_id": parent["id"]})).await;
    let child = ended(&gateway, &parent["id"]).await[0]["id"].clone();
    assert_eq!(text(&get(&gateway, child.as_str().unwrap()).await.json()), "done");
    let last = post(json!({"model": "demo", "input": "three", "previous_response_id": between["id"]})).await;
    assert!(told(&fast)[4]["content"].as_str().unwrap().ends_with("done"), "{:?}", told(&fast));
    let path = format!("{}/input_items?order=asc", last["id"].as_str().unwrap());
    let items = get(&gateway, &path).await.json();
    let item = &items["data"][4];
    assert_eq!((&item["role"], item["content"][0]["text"].as_str().unwrap().contains("done")), (&json!("user"), true));
    let next = post(json!({"model": "demo", "input": "four", "previous_response_id": last["id"]})).await;
    assert_eq!(told(&fast).iter().filter(|m| m["content"].as_str().unwrap().contains("task \"a\"")).count(), 1);
    assert_eq!(next["status"], "completed");
    let on = post(json!({"model": "demo", "input": "repeat: on", "previous_response_id": child})).await;
    assert_eq!(on["status"], "completed", "a stored child can be gone on from: {on}");
}

#[tokio::test]
async fn a_conversation_has_the_results_in_its_next_response() {
    let (fast, gateway) = two_tiers(simulated()).await;
    let conversation = gateway.post("/v1/conversations", &json!({})).await.json()["id"].clone();
    let body = |input: &str| json!({"model": "demo", "input": input, "conversation": conversation});
    let mut asked = body("hi");
    asked["flashlane"] = delegate(&[("a", "repeat: done")]);
    let parent = gateway.post("/v1/responses", &asked).await.json();
    ended(&gateway, &parent["id"]).await;
    for count in [3, 5] {
        assert_eq!(gateway.post("/v1/responses", &body("on")).await.status, 200);
        let told = told(&fast);
        assert_eq!(told.iter().filter(|m| m["content"].as_str().unwrap().contains("task \"a\"")).count(), 1);
        assert_eq!(told.len(), count + 1, "{told:?}");
    }
}

#[tokio::test]
async fn a_child_that_fails_or_is_cancelled_is_told_of_and_its_parent_is_not_touched() {
    let broken =
        Upstream::start(vec![[error(400, "", r#"{"error":{"message":"no such thing"}}"#), vec![Step::Again]].concat()])
            .await
            .unwrap();
    let (fast, gateway) = two_tiers(upstream(&broken.base_url())).await;
    let mut socket = gateway.websocket().await;
    let events = turn(&mut socket, &json!({"flashlane": delegate(&[("a", "x")])})).await;
    let parent = events.last().unwrap()["response"]["id"].clone();
    let children = ended(&gateway, &parent).await;
    assert_eq!((&children[0]["status"], children[0]["error"].is_object()), (&json!("failed"), true), "{children:?}");
    let shown = get(&gateway, children[0]["id"].as_str().unwrap()).await.json();
    assert_eq!((&shown["status"], &shown["error"]["message"]), (&json!("failed"), &children[0]["error"]["message"]));
    turn(&mut socket, &json!({"input": "two", "previous_response_id": parent})).await;
    assert!(told(&fast)[2]["content"].as_str().unwrap().contains("has failed: "), "{:?}", told(&fast));

    let endless = Upstream::start(vec![begun()]).await.unwrap();
    let (fast, gateway) = two_tiers(upstream(&endless.base_url())).await;
    let mut socket = gateway.websocket().await;
    let events = turn(&mut socket, &json!({"flashlane": delegate(&[("a", "x")])})).await;
    let parent = events.last().unwrap()["response"]["id"].clone();
    let id = children_of(&events, CREATED)[0]["id"].as_str().unwrap().to_owned();
    soon("the child to ask", endless.until(|seen| seen.requests.len() == 1)).await;
    let cancel = format!("/v1/responses/{id}/cancel");
    assert_eq!(gateway.send("POST", &cancel, OTHER, b"").await.status, 404, "another's");
    assert_eq!(gateway.send("POST", &cancel, "", b"").await.json()["status"], "cancelled");
    soon("its upstream to be cancelled", endless.until(|seen| seen.closed[0].is_some())).await;
    assert_eq!(listed(&gateway, &parent).await[0]["status"], "cancelled");
    assert_eq!(gateway.send("POST", &cancel, "", b"").await.json()["status"], "cancelled", "again");
    turn(&mut socket, &json!({"input": "two", "previous_response_id": parent})).await;
    assert!(told(&fast)[2]["content"].as_str().unwrap().ends_with("was cancelled."), "{:?}", told(&fast));
}

#[tokio::test]
async fn anothers_children_are_not_there() {
    let (_fast, gateway) = two_tiers(simulated()).await;
    let asked = json!({"model": "demo", "input": "hi", "flashlane": delegate(&[("a", "repeat: done")])});
    let parent = gateway.post("/v1/responses", &asked).await.json();
    let child = ended(&gateway, &parent["id"]).await[0]["id"].as_str().unwrap().to_owned();
    let of = |path: String| gateway.send("GET", Box::leak(path.into_boxed_str()), OTHER, b"");
    for path in [format!("{}/children", parent["id"].as_str().unwrap()), child.clone(), format!("{child}/input_items")]
    {
        assert_eq!(of(format!("/v1/responses/{path}")).await.status, 404, "{path}");
    }
    assert_eq!(get(&gateway, "resp_unknown/children").await.status, 404);
    assert_eq!(get(&gateway, &format!("{child}/children")).await.json()["data"], json!([]), "it has none itself");
}

#[tokio::test]
async fn as_many_run_as_may_and_who_is_refused_is_told_of() {
    let endless = Upstream::start(vec![begun()]).await.unwrap();
    let (_fast, gateway) = two_tiers(upstream(&endless.base_url())).await;
    let mut socket = gateway.websocket().await;
    let names = [("a", "x"), ("b", "x"), ("c", "x"), ("d", "x")];
    turn(&mut socket, &json!({"flashlane": delegate(&names)})).await;
    let events = turn(&mut socket, &json!({"flashlane": delegate(&names[..1])})).await;
    let parent = &events.last().unwrap()["response"]["id"];
    let refused = &listed(&gateway, parent).await[0];
    assert_eq!(
        (&refused["status"], refused["error"]["message"].as_str().unwrap().starts_with("4 children")),
        (&json!("failed"), true)
    );
    let shown = get(&gateway, refused["id"].as_str().unwrap()).await.json();
    assert_eq!((&shown["status"], &shown["id"]), (&json!("failed"), &refused["id"]));
    let events = turn(&mut socket, &json!({"previous_response_id": parent})).await;
    assert_eq!(children_of(&events, JOINED)[0]["status"], "failed");
    let metrics = gateway.metrics().await;
    for line in
        ["flashlane_children{kind=\"delegate\"} 4", "flashlane_children_total{kind=\"delegate\",outcome=\"refused\"} 1"]
    {
        assert!(metrics.contains(line), "{line}");
    }
}

#[tokio::test]
async fn who_leaves_leaves_the_children_to_run_and_their_turns_name_them() {
    let (_fast, gateway) = two_tiers(slow()).await;
    let mut socket = gateway.websocket().await;
    let events = turn(&mut socket, &json!({"flashlane": delegate(&[("a", "repeat: done")])})).await;
    drop(socket);
    let parent = events.last().unwrap()["response"]["id"].clone();
    assert_eq!(ended(&gateway, &parent).await[0]["status"], "completed");
    let metrics = gateway.metrics().await;
    for line in [
        "flashlane_children{kind=\"delegate\"} 0",
        "flashlane_children_total{kind=\"delegate\",outcome=\"completed\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
    let turns = exchange(gateway.admin, "GET", "/turns", "", b"").await.json();
    let turns = turns["turns"].as_array().unwrap();
    let child = turns.iter().find(|turn| turn["child"].is_object()).unwrap();
    assert_eq!((&child["child"]["name"], &child["child"]["parent"]), (&json!("a"), &parent));
    assert_eq!((&child["subagent"], &child["route"]["tier"]), (&json!(true), &json!("throughput")));
}

#[tokio::test]
async fn a_stop_fails_what_still_runs_and_nothing_hangs() {
    let endless = Upstream::start(vec![begun()]).await.unwrap();
    let children = EndpointConfig { name: "gpu".to_owned(), ..upstream(&endless.base_url()) };
    let endpoints = [simulated(), children];
    let gateway = Gateway::start_behind_with(&endpoints, admission::Settings::default(), |config, settings| {
        allow(settings);
        config.drain.busy_ms_max = 50;
    })
    .await;
    let store = gateway.store();
    let asked = json!({"model": "demo", "input": "repeat: yes", "flashlane": delegate(&[("a", "x")])});
    let parent = gateway.post("/v1/responses", &asked).await.json();
    let child = listed(&gateway, &parent["id"]).await[0]["id"].as_str().unwrap().to_owned();
    soon("the child to ask", endless.until(|seen| seen.requests.len() == 1)).await;
    gateway.stop();
    gateway.ended().await;
    let kept = store.retrieve(flashlane_store::OwnerId(owner()), &child, 0).await.unwrap().unwrap();
    let response: Value = serde_json::from_slice(&kept.response).unwrap();
    assert_eq!(response["status"], "failed", "{response}");
}

/// All who send no `Authorization`.
fn owner() -> [u8; 32] {
    flashlane_engine::Owner::default().0
}

#[tokio::test]
async fn a_tier_and_a_model_of_its_own_are_where_it_goes() {
    let (fast, gateway) = two_tiers(simulated()).await;
    let mut socket = gateway.websocket().await;
    let asked = json!({"delegate": [{"name": "a", "input": "x", "tier": "latency", "model": "openai/gpt-oss-120b",
        "instructions": "be brief", "reasoning": {"effort": "low"}, "max_output_tokens": 9}]});
    let events = turn(&mut socket, &json!({"flashlane": asked, "instructions": "be long"})).await;
    let parent = events.last().unwrap()["response"]["id"].clone();
    let child = ended(&gateway, &parent).await[0].clone();
    let seen = fast.seen();
    let asked = seen.requests.iter().map(|request| serde_json::from_slice::<Value>(&request.body).unwrap());
    let asked: Vec<_> = asked.filter(|body| body["model"] == "openai/gpt-oss-120b").collect();
    assert_eq!((asked.len(), &child["status"]), (1, &json!("completed")));
    assert_eq!((&asked[0]["reasoning_effort"], &asked[0]["max_completion_tokens"]), (&json!("low"), &json!(9)));
    assert_eq!(asked[0]["messages"][0]["content"], "be brief");
    let shown = get(&gateway, child["id"].as_str().unwrap()).await.json();
    assert_eq!((&shown["instructions"], text(&shown)), (&json!("be brief"), "yes".to_owned()));
}
