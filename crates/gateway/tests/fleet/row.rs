//! A row of the table in docs/ROUTING.md, as a value and as a test: a fault, and what the client sees of it.

use crate::client::{End, Transport};
use crate::fleet::{Fault, Fleet, Metrics, NAMES, Setup, Tier, answer};
use flashlane_engine::ErrorKind;

/// What the client sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Another endpoint's answer, and nothing of the fault.
    Nothing,
    /// Its answer, which is whole all the same.
    Whole,
    /// An error in the place of an answer.
    Error(ErrorKind),
    /// An answer that ends in `response.failed`.
    Failed(ErrorKind),
}

impl Told {
    pub fn cell(self, transport: Transport) -> String {
        let code = |kind: ErrorKind| kind.row().code.map_or_else(|| "`null`".to_owned(), |code| format!("`{code}`"));
        match (self, transport) {
            (Self::Nothing, _) => "nothing".to_owned(),
            (Self::Whole, _) => "the whole answer".to_owned(),
            (Self::Error(kind), Transport::WebSocket) => format!("`error` {}, {}", kind.row().status, code(kind)),
            (Self::Error(kind), Transport::Http) => format!("{}, {}", kind.row().status, code(kind)),
            (Self::Failed(kind), _) => format!("`response.failed`, `{}`", kind.row().response_code),
        }
    }
}

pub struct Row {
    /// In words.
    pub fault: &'static str,
    pub inject: Fault,
    /// Where it can happen.
    pub tiers: &'static [Tier],
    /// Where others of the plan are left.
    pub left: Told,
    /// Where none is.
    pub none: Told,
    /// Whether it counts against the endpoint.
    pub counts: bool,
}

/// A test for each row, and the list of them.
macro_rules! rows {
    ($($name:ident: $row:expr;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $crate::row::show(&$row).await;
            }
        )*

        /// The rows of this file, by their tests.
        pub const ROWS: &[(&str, $crate::row::Row)] = &[$((stringify!($name), $row)),*];
    };
}
pub(crate) use rows;

/// What is left beside the endpoint that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// Others of its tier.
    Neighbours,
    /// The other tier: the whole of its own fails.
    OtherTier,
    Nobody,
}

pub async fn show(row: &Row) {
    let setup = match row.inject {
        Fault::Silent | Fault::Stalls(_) | Fault::Comments(_) => Setup::impatient(),
        Fault::Refuses
        | Fault::HangsUp
        | Fault::Resets
        | Fault::Status(..)
        | Fault::Ends(_)
        | Fault::Cut(_)
        | Fault::NotHttp
        | Fault::NotEvents
        | Fault::NotJson(_)
        | Fault::InStream(_) => Setup::default(),
    };
    let mut fleet = Fleet::start(&setup).await;
    for &tier in row.tiers {
        for transport in Transport::BOTH {
            // Both versions of HTTP.
            for endpoint in tier.endpoints().take(2) {
                let key = fleet.pinned(endpoint, tier.only()).await;
                show_one(&mut fleet, row, (tier, Left::Neighbours), &[endpoint], (transport, Some(&key))).await;
            }
            let all: Vec<_> = tier.endpoints().collect();
            for left in [Left::OtherTier, Left::Nobody] {
                show_one(&mut fleet, row, (tier, left), &all, (transport, None)).await;
            }
        }
    }
}

async fn show_one(
    fleet: &mut Fleet,
    row: &Row,
    (tier, left): (Tier, Left),
    faulty: &[usize],
    (transport, key): (Transport, Option<&str>),
) {
    let what = format!("{:?} at {tier:?}, {left:?} left, over {transport:?}", row.inject);
    let model = if left == Left::OtherTier { tier.first() } else { tier.only() };
    for &endpoint in faulty {
        fleet.inject(endpoint, &row.inject).await;
    }
    let before = Before::of(fleet).await;
    let end = match key {
        Some(key) => fleet.ask_as(transport, model, key).await,
        None => fleet.ask(transport, model).await,
    };
    fleet.settled().await;
    let told = if left == Left::Nobody { row.none } else { row.left };
    assert_told(&end, told, faulty, &what);
    before.hold(fleet, row, (faulty, &end), &what).await;
    fleet.heal(faulty.iter().copied(), &row.inject).await;
}

fn assert_told(end: &End, told: Told, faulty: &[usize], what: &str) {
    match (told, end) {
        (Told::Nothing, End::Completed(text)) => {
            let well = (0..NAMES.len()).filter(|endpoint| !faulty.contains(endpoint));
            assert!(well.map(answer).any(|answer| answer == *text), "{what}: {text:?}");
        }
        (Told::Whole, End::Completed(text)) => {
            assert!(faulty.iter().any(|endpoint| answer(*endpoint) == *text), "{what}: {text:?}");
        }
        (Told::Error(kind), End::Refused { status, code }) => {
            assert_eq!((*status, code.as_deref()), (u64::from(kind.row().status), kind.row().code), "{what}");
        }
        (Told::Failed(kind), End::Failed { code, text }) => {
            assert_eq!(code, kind.row().response_code, "{what}");
            // Of the one that failed, and not twice.
            assert!(text.is_empty() || text == "from ", "{what}: {text:?}");
        }
        (told, end) => panic!("{what}: {told:?} was to be told, and not {end:?}"),
    }
}

/// How things stood before a turn.
struct Before {
    metrics: Metrics,
    seen: Vec<usize>,
    out: Vec<usize>,
    abandoned: Vec<usize>,
}

impl Before {
    async fn of(fleet: &Fleet) -> Self {
        fleet.settled().await;
        let each = |of: &dyn Fn(usize) -> usize| (0..NAMES.len()).map(of).collect::<Vec<_>>();
        Self {
            metrics: fleet.metrics().await,
            seen: each(&|endpoint| fleet.turns_seen(endpoint)),
            out: each(&|endpoint| fleet.times_out(endpoint)),
            abandoned: each(&|endpoint| fleet.abandoned(endpoint)),
        }
    }

    /// What one turn may have changed.
    async fn hold(&self, fleet: &Fleet, row: &Row, (faulty, end): (&[usize], &End), what: &str) {
        let metrics = fleet.metrics().await;
        let more = |family: &str, labels: &[&str]| metrics.sum(family, labels) - self.metrics.sum(family, labels);
        let context = || format!("{what}\n{}", fleet.log());
        let outcome = match end {
            End::Completed(_) => "outcome=\"completed\"",
            End::Failed { .. } | End::Refused { .. } => "outcome=\"failed\"",
        };
        // A client's word behind the end is refused.
        let begun = more("flashlane_turns_total", &[]) - more("flashlane_turns_total", &["outcome=\"refused\""]);
        assert_eq!(begun, 1, "{}", context());
        assert_eq!(more("flashlane_turns_total", &[outcome]), 1, "{outcome}: {}", context());
        let tried: Vec<bool> = (0..NAMES.len())
            .map(|endpoint| more("flashlane_upstream_attempts_failed_total", &[&format!("{:?}", NAMES[endpoint])]) > 0)
            .collect();
        let failed = more("flashlane_upstream_attempts_failed_total", &[]);
        // Each that could be tried once, or the one whose answer had begun.
        let expected = match row.left {
            Told::Nothing => faulty.len(),
            Told::Whole => 0,
            Told::Error(_) | Told::Failed(_) => 1,
        };
        assert_eq!(failed, expected as u64, "attempts that failed: {}", context());
        let attempts = failed + u64::from(matches!(end, End::Completed(_)));
        let attempt = if attempts > 1 { "attempt=\"retry\"" } else { "attempt=\"first\"" };
        assert_eq!(more("flashlane_routes_total", &[]), 1, "{}", context());
        assert_eq!(more("flashlane_routes_total", &[attempt]), 1, "{attempt}: {}", context());
        for gauge in ["flashlane_upstream_turns_in_flight", "flashlane_tier_turns_running"] {
            assert_eq!(metrics.sum(gauge, &[]), 0, "{gauge}: {}", context());
        }
        for endpoint in 0..NAMES.len() {
            let name = NAMES[endpoint];
            if !faulty.contains(&endpoint) {
                let served = usize::from(*end == End::Completed(answer(endpoint)));
                assert_eq!(fleet.turns_seen(endpoint) - self.seen[endpoint], served, "{name}: {}", context());
            }
            let had_it = tried[endpoint] || (faulty.contains(&endpoint) && *end == End::Completed(answer(endpoint)));
            let counted = usize::from(had_it && row.counts);
            assert_eq!(fleet.times_out(endpoint) - self.out[endpoint], counted, "{name} put out: {}", context());
            let holds = matches!(row.inject, Fault::Silent | Fault::Stalls(_) | Fault::Comments(_));
            if holds && tried[endpoint] {
                fleet.until_left(endpoint, self.abandoned[endpoint]).await;
            }
        }
    }
}
