//! What stands for a driver's children: each is a session of its own, which has to want to be kept; they end when a script says so.

use crate::peer::{fleet, ring};
use flashlane_engine::{
    Answer, ChildEnded, Delegated, Delegation, Effect, Fate, IdSource, Now, Owner, Session, Settings, Shared, Standing,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Two children of a request.
pub const DELEGATE: &str = r#","flashlane":{"delegate":[{"name":"a","input":"x"},{"name":"b","input":[{"role":"user","content":"y"}],"model":"small"}]}"#;

struct Begun {
    id: Arc<str>,
    name: Arc<str>,
    model: Arc<str>,
}

#[derive(Default)]
pub struct Nursery {
    /// In the order in which they began; how they ended.
    children: Vec<(Begun, Option<Fate>)>,
    /// What was kept of them before they ran, by their ids: their own items, and their objects.
    pub kept: BTreeMap<Arc<str>, (Vec<String>, String)>,
    pub parents: Vec<Arc<str>>,
    pub asked: usize,
}

impl Nursery {
    pub fn begin(&mut self, delegation: Delegation, now: Now) {
        self.parents.push(delegation.parent);
        for child in delegation.children {
            let (id, name) = (Arc::clone(&child.id), Arc::clone(&child.name));
            let begun = Begun { id, name, model: Arc::clone(child.model()) };
            self.run(child, now);
            self.children.push((begun, None));
        }
    }

    /// It asks for nothing before it is kept.
    fn run(&mut self, child: Delegated, now: Now) {
        let shared = Arc::new(Shared::new(Settings::default(), Arc::new(fleet()), ring()));
        let mut session = Session::http(shared, IdSource::new([9; 32]), Owner::default());
        session.handle_child(child.draft, now);
        assert!(session.poll_effect().is_none());
        let Some(Answer::Background(enlisting)) = session.answer() else { panic!("it does not want to be kept") };
        let record = enlisting.record;
        assert_eq!(record.id, *child.id, "under the id that its parent was told");
        let items = record.items().map(|item| String::from_utf8(item.to_vec()).unwrap()).collect();
        let object = String::from_utf8(record.response.to_vec()).unwrap();
        assert!(self.kept.insert(child.id, (items, object)).is_none());
        session.handle_enlisted(enlisting.turn, Ok(()), now);
        let asked = std::iter::from_fn(|| session.poll_effect());
        self.asked += asked.filter(|effect| matches!(effect, Effect::Ask(..) | Effect::Count(..))).count();
    }

    pub fn end_next(&mut self, fate: Fate) {
        if let Some((_, ended)) = self.children.iter_mut().find(|(_, ended)| ended.is_none()) {
            *ended = Some(fate);
        }
    }

    pub fn standing(&self, ids: &[Arc<str>]) -> Standing {
        let mut standing = Standing::default();
        for id in ids {
            let (begun, fate) = self.children.iter().find(|(begun, _)| begun.id == *id).expect("one that began");
            match fate {
                None => standing.running.push(Arc::clone(id)),
                Some(fate) => standing.ended.push(ChildEnded {
                    id: Arc::clone(id),
                    name: Arc::clone(&begun.name),
                    model: Arc::clone(&begun.model),
                    fate: fate.clone(),
                    text: format!("result of \"{}\"", begun.name).into(),
                }),
            }
        }
        standing
    }
}
