//! Turns as lines for people: a table of several, and of one its route, its attempts and a waterfall. Knows no terminal but its width.

use crate::calendar;
use flashlane_engine::Stage;
use flashlane_telemetry::TurnRecord;
use flashlane_telemetry::turns::{Guarded, Spliced, Tried};
use std::fmt::Write as _;

const WIDTH_MIN: usize = 60;
const WIDTH_MAX: usize = 160;
/// Of a line's bar, before it: the stage's name; behind it: two times.
const NAME_WIDTH: usize = 15;
const TIMES_WIDTH: usize = 24;

/// The row of what ran beside the stages.
const BESIDE: &str = "+ guard asked";

const GATEWAY: &str = "gateway";
const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

pub(super) struct Picture {
    width: usize,
    has_colour: bool,
}

impl Picture {
    pub(super) fn new(width: usize, has_colour: bool) -> Self {
        Self { width: width.clamp(WIDTH_MIN, WIDTH_MAX), has_colour }
    }

    /// One whole, several as a list.
    pub(super) fn of(&self, turns: &[TurnRecord]) -> String {
        match turns {
            [turn] => self.one(turn),
            turns => self.list(turns),
        }
    }

    /// The newest last, where a person looks first.
    fn list(&self, turns: &[TurnRecord]) -> String {
        let mut out = format!("{} turns, the newest last; `flashlane explain RESPONSE_ID` shows one\n\n", turns.len());
        for turn in turns.iter().rev() {
            let route = turn
                .route
                .as_ref()
                .map_or_else(|| "-".to_owned(), |route| format!("{}/{}", route.tier, route.endpoint));
            let id = if turn.response_id.is_empty() { "-" } else { &turn.response_id };
            let status = self.paint(colour(turn), &format!("{:<11}", turn.status));
            let error = turn.error.as_ref().map(|error| format!("  {error}")).unwrap_or_default();
            push(
                &mut out,
                format_args!(
                    "{}  {id:<37}  {status}  {:>10}  {route}{error}",
                    clock(turn.began_unix_us),
                    ms(turn.total_us)
                ),
            );
        }
        out
    }

    fn one(&self, turn: &TurnRecord) -> String {
        let mut out = String::new();
        let id = if turn.response_id.is_empty() { "no response" } else { &turn.response_id };
        let error = turn.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        let status = self.paint(colour(turn), &format!("{}{error}", turn.status));
        push(&mut out, format_args!("{}  {status}", self.paint(BOLD, id)));
        let key = turn.key.as_ref().map(|key| format!(", key {key}")).unwrap_or_default();
        let simulated = if turn.simulated { ", simulated" } else { "" };
        self.line(&mut out, "request", &format!("{}{key}", turn.request_id));
        self.line(
            &mut out,
            "began",
            &format!("{} {} UTC", calendar::date(seconds(turn.began_unix_us)), clock(turn.began_unix_us)),
        );
        if !turn.model.0.is_empty() {
            self.line(&mut out, "model", &format!("{}{simulated}", turn.model));
        }
        self.line(&mut out, "route", &route(turn));
        if let Some(queue) = &turn.queue {
            let waited = turn.parts.iter().find(|part| part.stage == "queue").map_or(0, |part| part.us);
            self.line(&mut out, "queue", &format!("place {} at {}, waited {}", queue.place, queue.tier, ms(waited)));
        }
        for (number, tried) in turn.attempts.iter().enumerate() {
            self.line(&mut out, if number == 0 { "attempts" } else { "" }, &self.attempt(turn, number + 1, tried));
        }
        if let Some(hedge) = &turn.hedge {
            let outcome = hedge.outcome.replace('_', " ");
            self.line(&mut out, "hedge", &format!("{outcome}, {} tokens besides", hedge.tokens));
        }
        for splice in &turn.splices {
            self.line(&mut out, "splice", &spliced(splice));
        }
        if let Some(guard) = &turn.guard {
            self.line(&mut out, "guard", &self.guard(turn, guard));
        }
        let tokens = &turn.tokens;
        self.line(
            &mut out,
            "tokens",
            &format!("{} in ({} cached), {} out{}", tokens.input, tokens.cached, tokens.output, rate(turn)),
        );
        if let Some(trace) = &turn.trace {
            let sampled = if trace.is_sampled { "" } else { ", not sampled" };
            self.line(&mut out, "trace", &format!("{}{sampled}", trace.trace_id));
        }
        if !turn.tools_not_forwarded.is_empty() {
            self.line(&mut out, "left out", &format!("tools {}", printable(&turn.tools_not_forwarded.join(", "))));
        }
        self.waterfall(&mut out, turn);
        out
    }

    fn attempt(&self, turn: &TurnRecord, number: usize, tried: &Tried) -> String {
        let took = ms(tried.ended_at_us.saturating_sub(tried.began_at_us));
        let place = format!(
            "{number} {}/{} ({}, {})",
            tried.route.tier, tried.route.endpoint, tried.route.pick, tried.route.attempt
        );
        match &tried.failure {
            Some(failure) => {
                format!("{place} {} after {took}: {}", self.paint(RED, "failed"), printable(failure))
            }
            None if tried.outrun => format!("{place} outrun after {took}"),
            None if turn.error.is_some() || turn.status == "cancelled" => format!("{place} left after {took}"),
            None => format!("{place} {} in {took}", self.paint(GREEN, "served")),
        }
    }

    fn guard(&self, turn: &TurnRecord, guard: &Guarded) -> String {
        let (ruling, took) = (guard.ruling.replace('_', " "), ms(guard.took_us));
        let ruling = self.paint(if guard.ruling == "passed" { GREEN } else { RED }, &ruling);
        let held = match turn.part_us(Stage::Guard) {
            0 => "nothing was held for it".to_owned(),
            us => format!("the answer was held for {}", ms(us)),
        };
        let course = match &*guard.turn {
            "went_on" => "",
            "refused" => ", the turn was refused",
            _ => ", the turn had ended before",
        };
        let reason = guard.reason.as_ref().map(|reason| format!(" ({})", printable(reason))).unwrap_or_default();
        format!("{} {ruling} after {took}{reason}{course}; {held}", guard.name)
    }

    fn waterfall(&self, out: &mut String, turn: &TurnRecord) {
        if turn.steps.is_empty() || turn.total_us == 0 {
            return;
        }
        let room = self.width.saturating_sub(NAME_WIDTH + TIMES_WIDTH).max(10);
        let scale = |us: u64| usize::try_from(us.saturating_mul(room as u64) / turn.total_us).unwrap_or(room).min(room);
        out.push('\n');
        let head = format!("{:<NAME_WIDTH$}{:<room$}{:>12}{:>12}", "", "", "at", "took");
        push(out, format_args!("{}", self.paint(DIM, &head)));
        let row = |(stage, from_us, to_us): (&str, u64, u64)| {
            let (from, to) = (scale(from_us), scale(to_us));
            // What took time is seen, however short.
            let long = (to - from).max(1);
            let from = from.min(room - long);
            let bar = self.paint(bar_colour(stage), &"█".repeat(long));
            let (before, after) = (" ".repeat(from), " ".repeat(room - from - long));
            format!("{stage:<NAME_WIDTH$}{before}{bar}{after}{:>12}{:>12}", ms(from_us), ms(to_us - from_us))
        };
        rows(turn).into_iter().for_each(|span| push(out, format_args!("{}", row(span))));
        if let Some(guard) = &turn.guard {
            // Beside the others: it adds nothing to the whole but what was held for it.
            let asked = row((BESIDE, guard.asked_at_us, guard.asked_at_us.saturating_add(guard.took_us)));
            push(out, format_args!("{asked}"));
        }
        let ttft = turn.ttft_us.map(|us| format!(", first token at {}", ms(us))).unwrap_or_default();
        push(
            out,
            format_args!(
                "{:<NAME_WIDTH$}{} in all{ttft}, flashlane's own work {}",
                "",
                ms(turn.total_us),
                ms(turn.gateway_us)
            ),
        );
    }

    fn line(&self, out: &mut String, name: &str, text: &str) {
        push(out, format_args!("  {} {text}", self.paint(DIM, &format!("{name:<9}"))));
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.has_colour { format!("{colour}{text}{PLAIN}") } else { text.to_owned() }
    }
}

/// The spans, those of one stage in a row as one. flashlane's own work may stand in two places: what it does at the end is called so.
fn rows(turn: &TurnRecord) -> Vec<(&str, u64, u64)> {
    let mut rows: Vec<(&str, u64, u64)> = Vec::new();
    for (stage, from_us, to_us) in turn.spans() {
        match rows.last_mut().filter(|row| row.0 == stage) {
            Some(row) => row.2 = to_us,
            None => rows.push((stage, from_us, to_us)),
        }
    }
    let is_twice = rows.iter().filter(|row| row.0 == GATEWAY).count() > 1;
    if let Some(last) = rows.last_mut().filter(|row| is_twice && row.0 == GATEWAY) {
        last.0 = "gateway, end";
    }
    rows
}

/// Writing to a string cannot fail.
fn push(out: &mut String, line: std::fmt::Arguments<'_>) {
    let start = out.len();
    let _ = out.write_fmt(line);
    let end = start + out.get(start..).map_or(0, |line| line.trim_end().len());
    out.truncate(end);
    out.push('\n');
}

/// What a peer said must not steer a terminal.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

fn route(turn: &TurnRecord) -> String {
    match &turn.route {
        Some(route) => format!("{}/{}: {}, {}, {}", route.tier, route.endpoint, route.plan, route.pick, route.attempt),
        None => "none: no endpoint had it".to_owned(),
    }
}

fn rate(turn: &TurnRecord) -> String {
    let after_first = turn.ttft_us.map_or(0, |us| turn.total_us.saturating_sub(us));
    let per_second = turn.tokens.output.saturating_sub(1).saturating_mul(1_000_000).checked_div(after_first);
    per_second.filter(|rate| *rate > 0).map(|rate| format!(", {rate} a second")).unwrap_or_default()
}

fn colour(turn: &TurnRecord) -> &'static str {
    if turn.error.is_some() { RED } else { GREEN }
}

/// What waits for others is dim.
fn bar_colour(stage: &str) -> &'static str {
    match stage {
        "stream" => GREEN,
        "queue" | "connect" | "upstream_ttft" | "guard" | BESIDE => DIM,
        _ => PLAIN,
    }
}

fn ms(us: u64) -> String {
    format!("{}.{:03} ms", us / 1000, us % 1000)
}

fn seconds(unix_us: u64) -> i64 {
    i64::try_from(unix_us / 1_000_000).unwrap_or(i64::MAX)
}

/// `18:01:02.123`, UTC.
fn clock(unix_us: u64) -> String {
    let of_day_ms = unix_us / 1000 % 86_400_000;
    let (seconds, ms) = (of_day_ms / 1000, of_day_ms % 1000);
    format!("{:02}:{:02}:{:02}.{ms:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// `gpu-1 -> gpu-2 (cut), behind 120 bytes of item 0: exact`.
fn spliced(splice: &Spliced) -> String {
    let to = splice.to.as_ref().map_or_else(|| "nobody".to_owned(), |name| printable(&name.0));
    let exact = splice.inexact.as_ref().map_or_else(|| "exact".to_owned(), |why| format!("not exact ({why})"));
    let (from, reason, bytes, index) = (printable(&splice.from.0), &splice.reason, splice.bytes, splice.output_index);
    format!("{from} -> {to} ({reason}), behind {bytes} bytes of item {index}: {exact}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn turn() -> TurnRecord {
        let route = |endpoint: &str, attempt: &str| json!({"tier": "latency", "endpoint": endpoint, "plan": "model-route", "pick": "only", "attempt": attempt, "queued_ms": 2});
        let tried = |endpoint: &str, attempt: &str, (from, to): (u64, u64), failure: Option<&str>| {
            let mut tried = route(endpoint, attempt);
            let more = json!({"model": "m", "began_at_us": from, "ended_at_us": to, "failure": failure});
            tried.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            tried
        };
        serde_json::from_value(json!({
            "number": 7, "request_id": "req_1", "response_id": "resp_1", "began_unix_us": 1_700_000_000_123_000_u64, "key": "partner",
            "owner": "00", "model": "demo", "status": "completed", "route": route("wafer-2", "retry"), "simulated": true,
            "queue": {"tier": "latency", "place": 3},
            "attempts": [tried("wafer-1", "first", (2_000, 4_000), Some("answered 503\u{1b}[2J")), tried("wafer-2", "retry", (4_000, 10_000), None)],
            "steps": [{"stage": "queue", "at_us": 0}, {"stage": "connect", "at_us": 2_000}, {"stage": "stream", "at_us": 5_000}],
            "parts": [{"stage": "queue", "us": 2_000}, {"stage": "stream", "us": 5_000}],
            "ttft_us": 5_000, "total_us": 10_000, "gateway_us": 40,
            "tokens": {"input": 100, "cached": 60, "output": 11, "reasoning": 0}, "subagent": false
        }))
        .unwrap()
    }

    #[test]
    fn a_splice_has_its_line() {
        let mut record = serde_json::to_value(turn()).unwrap();
        let splice = |to: Option<&str>, inexact: Option<&str>| json!({"from": "gpu-1", "to": to, "reason": "cut", "output_index": 0, "bytes": 120, "inexact": inexact});
        record["splices"] = json!([splice(Some("gpu-2"), None), splice(None, Some("sampling"))]);
        let told = Picture::new(60, false).of(&[serde_json::from_value(record).unwrap()]);
        assert!(told.contains("splice    gpu-1 -> gpu-2 (cut), behind 120 bytes of item 0: exact\n"), "{told}");
        assert!(told.contains("gpu-1 -> nobody (cut), behind 120 bytes of item 0: not exact (sampling)\n"), "{told}");
    }

    #[test]
    fn a_guard_has_its_line_and_its_row_beside_the_stages() {
        let of = |ruling: &str, course: &str, reason: Option<&str>| {
            let guard = json!({"name": "policy", "ruling": ruling, "turn": course, "asked_at_us": 0, "took_us": 5_000, "reason": reason});
            let parts = json!([{"stage": "guard", "us": 2_000}]);
            let mut record = serde_json::to_value(turn()).unwrap();
            record.as_object_mut().unwrap().extend([("guard".to_owned(), guard), ("parts".to_owned(), parts)]);
            Picture::new(60, false).of(&[serde_json::from_value(record).unwrap()])
        };
        let passed = of("passed", "went_on", None);
        let line = "  guard     policy passed after 5.000 ms; the answer was held for 2.000 ms\n";
        let row = "+ guard asked  ██████████               0.000 ms    5.000 ms\n";
        assert!(passed.contains(line) && passed.contains(row), "{passed}");
        let late = of("timed_out", "refused", Some("no answer within 5 ms"));
        assert!(
            late.contains("policy timed out after 5.000 ms (no answer within 5 ms), the turn was refused;"),
            "{late}"
        );
    }

    #[test]
    fn a_second_endpoint_has_its_line_and_who_was_outrun_did_not_fail() {
        let mut record = serde_json::to_value(turn()).unwrap();
        record["hedge"] = json!({"outcome": "took_over", "tokens": 40});
        record["attempts"][1]["outrun"] = true.into();
        let text = Picture::new(60, false).of(&[serde_json::from_value(record).unwrap()]);
        assert!(text.contains("  hedge     took over, 40 tokens besides\n"), "{text}");
        assert!(text.contains("2 latency/wafer-2 (only, retry) outrun after 6.000 ms\n"), "{text}");
    }

    #[test]
    fn a_turn_is_told_with_its_way_and_its_waterfall() {
        let wanted = "\
resp_1  completed
  request   req_1, key partner
  began     2023-11-14 22:13:20.123 UTC
  model     demo, simulated
  route     latency/wafer-2: model-route, only, retry
  queue     place 3 at latency, waited 2.000 ms
  attempts  1 latency/wafer-1 (only, first) failed after 2.000 ms: answered 503[2J
            2 latency/wafer-2 (only, retry) served in 6.000 ms
  tokens    100 in (60 cached), 11 out, 2000 a second

                                              at        took
queue          ████                     0.000 ms    2.000 ms
connect            ██████               2.000 ms    3.000 ms
stream                   ███████████    5.000 ms    5.000 ms
               10.000 ms in all, first token at 5.000 ms, flashlane's own work 0.040 ms
";
        assert_eq!(Picture::new(60, false).of(&[turn()]), wanted);
    }

    #[test]
    fn own_work_in_two_places_is_told_apart() {
        let step = |stage: &str, at_us: u64| json!({"stage": stage, "at_us": at_us});
        let steps = [step("queue", 0), step("gateway", 2), step("gateway", 3), step("stream", 5), step("gateway", 9)];
        let mut record = serde_json::to_value(turn()).unwrap();
        record["steps"] = steps.into_iter().collect();
        let turn: TurnRecord = serde_json::from_value(record).unwrap();
        let told: Vec<_> = rows(&turn).into_iter().map(|(stage, from_us, _)| (stage, from_us)).collect();
        assert_eq!(told, [("queue", 0), ("gateway", 2), ("stream", 5), ("gateway, end", 9)]);
    }

    #[test]
    fn lines_fit_and_colours_are_only_where_they_are_wanted() {
        for width in [0, 60, 80, 200] {
            let text = Picture::new(width, false).of(&[turn()]);
            let bars = text.lines().filter(|line| line.contains('█'));
            assert!(
                bars.clone().count() == 3 && bars.into_iter().all(|line| line.chars().count() <= width.clamp(60, 160)),
                "{text}"
            );
            assert!(!text.contains('\u{1b}'));
        }
        assert!(Picture::new(80, true).of(&[turn()]).contains("\u{1b}[32m"));
    }

    #[test]
    fn several_turns_are_a_list_with_the_newest_last() {
        let refused = TurnRecord {
            number: 8,
            response_id: String::new(),
            status: "refused".into(),
            error: Some("invalid_json".into()),
            route: None,
            ..turn()
        };
        let text = Picture::new(80, false).of(&[refused, turn()]);
        let lines: Vec<_> = text.lines().skip(2).collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("22:13:20.123  resp_1") && lines[0].ends_with("latency/wafer-2"), "{text}");
        assert!(lines[1].contains("refused") && lines[1].ends_with("-  invalid_json"), "{text}");
    }
}
