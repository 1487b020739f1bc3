//! What a client sees of a session, checked event by event against the invariants of the contract.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What a client has seen, checked as it comes.
#[derive(Default)]
pub struct Watch {
    /// An upstream that speaks the Responses API may make items at once, and send events that nobody here knows.
    pub is_passing: bool,
    pub events: Vec<Value>,
    /// By lane; the default lane's name is empty.
    current: BTreeMap<String, Seen>,
    /// Each lane's response that ended last.
    before: BTreeMap<String, Seen>,
    latest: Option<String>,
    /// Accepted steers that are neither used nor handed back: the lane, and the response that they steer.
    pub steers: BTreeMap<String, (String, String)>,
    pub ended: Vec<String>,
    /// All that were begun.
    pub children: BTreeSet<String>,
    pub errors: u32,
    /// In queues, as they were told.
    pub places: Vec<u64>,
}

#[derive(Default)]
struct Seen {
    id: String,
    next: u64,
    /// Output index to item id, of items that are open.
    open: BTreeMap<u64, String>,
    items: u64,
    text: BTreeMap<String, String>,
    /// Children that joined its input.
    joined: BTreeSet<String>,
}

/// The lane that an event says it is of.
fn lane_of(event: &Value) -> String {
    event["stream_id"].as_str().unwrap_or_default().to_owned()
}

impl Watch {
    /// The response that was announced last, of those that run.
    pub fn latest(&self) -> String {
        self.latest.clone().unwrap_or_default()
    }

    /// The response that runs in a lane, once it was announced.
    pub fn running(&self, lane: &str) -> String {
        self.current.get(lane).map(|seen| seen.id.clone()).unwrap_or_default()
    }

    /// An item that a child's response is said to have come to: it has ended, and so has its lane.
    fn child(&self, item: &Value) {
        let child = &item["flashlane"]["child"];
        let runs = |lane: &str| self.current.contains_key(lane);
        assert!(child["name"].as_str().is_some_and(|name| !runs(name)), "{item}");
        let id = child["id"].as_str();
        assert!(self.current.values().all(|seen| Some(seen.id.as_str()) != id), "{item}");
        assert_eq!(item["status"] == "completed", child["status"] == "completed");
        assert_eq!(child["status"] == "failed", child["error"]["message"].is_string());
    }

    pub fn see(&mut self, event: Value) {
        let kind = event["type"].as_str().unwrap().to_owned();
        let lane = lane_of(&event);
        match kind.as_str() {
            "keepalive" if event["queue"].is_object() => self.places.extend(event["queue"]["place"].as_u64()),
            "keepalive" => assert!(!self.current.is_empty(), "signs of life only while a response runs"),
            "error" => {
                assert!(
                    event["status"].is_u64() && event["error"]["message"].is_string() && event["message"].is_string()
                );
                self.errors += 1;
            }
            "response.created" => {
                let id = event["response"]["id"].as_str().unwrap().to_owned();
                assert!(!self.ended.contains(&id));
                self.latest = Some(id.clone());
                // A fork into another lane leaves them where they are.
                let previous = event["response"]["previous_response_id"].as_str();
                self.steers.retain(|_, (of_lane, of)| *of_lane != lane || Some(of.as_str()) != previous);
                let was = self.current.insert(lane, Seen { id, ..Seen::default() });
                assert!(was.is_none(), "one response at a time in a lane");
                self.number(&event);
            }
            "response.completed" | "response.incomplete" | "response.failed" => {
                self.number(&event);
                let seen = self.current.remove(&lane).expect("a terminal event ends a response");
                let output = event["response"]["output"].as_array().unwrap();
                let places = output.iter().filter_map(|item| item["flashlane"]["child"]["name"].as_str());
                assert!(places.is_sorted(), "children are told in their order: {event}");
                assert!(seen.open.is_empty(), "nothing is left open: {:?}", seen.open);
                assert_eq!(event["response"]["id"], seen.id);
                assert_eq!(event["response"]["status"], kind["response.".len()..]);
                if event["response"]["incomplete_details"]["reason"] == "steered" {
                    assert!(self.steers.values().any(|(_, of)| *of == seen.id), "only a steer steers");
                }
                if kind != "response.failed" {
                    self.ended.push(seen.id.clone());
                }
                self.before.insert(lane, seen);
            }
            "response.steer.accepted" => {
                let steer = |name: &str| event["steer"][name].as_str().unwrap().to_owned();
                let of = steer("previous_response_id");
                // One that joins a successor goes on with the numbers of the response that has ended.
                let before = self.before.get_mut(&lane).filter(|seen| seen.id == of);
                let current = self.current.get_mut(&lane).filter(|seen| seen.id == of);
                let seen = before.or(current).expect("a response of this lane");
                assert_eq!(event["sequence_number"], seen.next, "{event}");
                seen.next += 1;
                assert!(self.steers.insert(steer("id"), (lane, of)).is_none());
            }
            "response.steer.pending" => {
                let seen = self.before.get_mut(&lane).expect("it follows its response");
                assert_eq!(event["sequence_number"], seen.next, "{event}");
                seen.next += 1;
                assert_eq!(self.steers[event["steer"]["id"].as_str().unwrap()].1, seen.id);
            }
            "response.steer.failed" => {
                if let Some(id) = event["steer"]["id"].as_str() {
                    assert!(self.steers.remove(id).is_some(), "only what was accepted and not used comes back");
                }
                assert_eq!(event["steer"]["input"], "rather this");
            }
            _ => {
                self.number(&event);
                self.item(&kind, &event);
            }
        }
        self.events.push(event);
    }

    fn number(&mut self, event: &Value) {
        let seen = self.current.get_mut(&lane_of(event)).expect("an event of a response that was created");
        assert_eq!(event["sequence_number"], seen.next, "numbers have no gaps: {event}");
        seen.next += 1;
    }

    fn item(&mut self, kind: &str, event: &Value) {
        let seen = self.current.get_mut(&lane_of(event)).unwrap();
        let index = event["output_index"].as_u64();
        match kind {
            "response.in_progress" | "response.interrupt.accepted" => {}
            "response.flashlane.child.created" => {
                let id = event["child"]["id"].as_str().unwrap().to_owned();
                assert!(self.children.insert(id), "a child begins once");
            }
            "response.flashlane.child.joined" => {
                let id = event["child"]["id"].as_str().unwrap();
                assert!(self.children.contains(id), "only what was begun joins");
                assert!(seen.joined.insert(id.to_owned()), "and once in a response");
                assert_eq!(seen.items, 0, "before the answer");
            }
            "response.output_item.added" => {
                assert_eq!(index, Some(seen.items), "indexes have no gaps");
                assert!(seen.open.is_empty() || self.is_passing, "one item at a time");
                seen.items += 1;
                seen.open.insert(index.unwrap(), event["item"]["id"].as_str().unwrap().to_owned());
            }
            "response.output_item.done" => {
                let id = seen.open.remove(&index.unwrap()).expect("closed once, after it was opened");
                assert_eq!(event["item"]["id"], id);
                let item = &event["item"];
                if !item["flashlane"].is_null() {
                    self.child(item);
                }
                let seen = self.current.get_mut(&lane_of(event)).unwrap();
                if item["type"] == "compaction" {
                    assert!(!item["encrypted_content"].as_str().unwrap().is_empty());
                    assert_eq!(seen.text.remove(&id).unwrap(), "compacting");
                    return;
                }
                let whole = ["arguments", "input"].iter().find_map(|name| item[name].as_str());
                let whole = whole.or_else(|| item["content"][0]["text"].as_str()).unwrap_or_default();
                assert_eq!(seen.text.remove(&id).unwrap_or_default(), whole, "the deltas add up to the whole");
            }
            "response.output_item.interrupted" => {
                let id = seen.open.remove(&index.unwrap()).expect("only an open item is interrupted");
                assert_eq!(event["item_id"], id);
            }
            _ if self.is_passing && index.is_none() => {}
            _ => {
                let id = event["item_id"].as_str().unwrap();
                assert_eq!(seen.open.get(&index.unwrap()).map(String::as_str), Some(id), "{event}");
                if kind.ends_with(".delta") {
                    let delta = event["delta"].as_str().unwrap();
                    assert!(!delta.is_empty());
                    seen.text.entry(id.to_owned()).or_default().push_str(delta);
                }
                if kind == "response.compaction.compacting" {
                    assert!(seen.text.insert(id.to_owned(), "compacting".to_owned()).is_none(), "it is told once");
                }
            }
        }
    }
}
