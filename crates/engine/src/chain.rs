//! What a `previous_response_id` stands for: the items so far, as served and as rendered for an upstream.
//!
//! The pieces are immutable and shared: a fork costs pointers, a turn costs the work of its own items. Small pieces are
//! merged like the digits of a counter, so that a chain has few of them and no byte is copied more than a few times.

use crate::compaction::{Kept, Scope, Summary};
use crate::guard::Passed;
use crate::router::{Media, SessionKey};
use crate::seal::{Opener, Purpose, SealError, Takes};
use crate::tokens::Tally;
use crate::tools::{Tools, read_tools};
use bytes::Bytes;
use flashlane_wire::chat::{Ends, OpenCall, Renderer, ToolSet, unanswered};
use flashlane_wire::json;
use flashlane_wire::responses::{Item, ParseError, Part, Reason};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// A piece of this size, or of this share of its chain, is not copied again, unless the chain has too many: each piece costs
/// every turn its place in the request.
const PIECE_BYTES_MERGED_MAX: usize = 64 * 1024;
const PIECE_SHARE: usize = 8;
const PIECES_MAX: usize = 64;

/// Consecutive items.
#[derive(Debug, Default)]
pub struct Piece {
    /// The items' messages, comma by comma; empty when no item is told to a chat backend.
    pub messages: Bytes,
    /// Each item's JSON, as served. A store may keep them without the messages.
    pub items: Arc<Vec<Bytes>>,
    /// The ids of the calls among them.
    pub calls: Vec<Arc<str>>,
    /// The tokens of the messages, once they were counted.
    pub tally: Tally,
    /// Images and files in it, which are not counted.
    pub media: Media,
    /// What its messages have to do with those before and after them.
    pub ends: Ends,
    /// A summary in it, which only its owner's reader can render: whether it stands for all before it, in earlier pieces as well.
    pub summary: Option<Scope>,
    /// The guard that has seen it.
    pub passed: Passed,
}

/// The items of a conversation up to one response.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    pieces: Vec<Arc<Piece>>,
    /// Tools that came as `additional_tools` items.
    tools: Option<Arc<Tools>>,
    message_bytes: usize,
    weight: usize,
    unstored: bool,
    /// Calls at its end that are not answered yet.
    open: Vec<OpenCall>,
    /// The name that routing gave it by how it begins, which it keeps as it grows.
    root: Option<SessionKey>,
    /// Children of its responses whose results have not joined it.
    children: Option<Arc<[Arc<str>]>>,
}

/// What an item costs beside its bytes.
const ITEM_BYTES: usize = 64;

impl Piece {
    /// What this piece holds in memory, in bytes: an item that no backend is told of counts as well.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.messages.len() + self.items.iter().map(|item| item.len() + ITEM_BYTES).sum::<usize>()
    }
}

impl Chain {
    /// The chain of items that were read before, each its JSON.
    ///
    /// # Errors
    /// What is no item, or a compaction whose key is not there any more.
    pub fn read(items: &[Bytes], opener: Opener<'_>) -> Result<Self, ParseError> {
        Ok(Self::of(render_again(items, opener)?))
    }

    /// The chain of items that a compaction, the last of them, stands for: without that itself, which is output.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn compacted(items: &[Bytes], opener: Opener<'_>) -> Result<Self, ParseError> {
        let mut rendered = render_again(items, opener)?;
        Arc::make_mut(&mut rendered.piece.items).pop();
        Ok(Self::of(rendered))
    }

    fn of(rendered: Rendered) -> Self {
        let mut chain = Self::default();
        chain.append(Arc::new(rendered.piece));
        if let Some(tools) = rendered.tools {
            chain.add_tools(&tools);
        }
        chain
    }

    /// Appends items that were just read: where they have a compaction, it may stand for all before it.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn join(&mut self, piece: &Arc<Piece>, opener: Opener<'_>) -> Result<(), ParseError> {
        if piece.summary != Some(Scope::All) || self.pieces.is_empty() {
            self.append(Arc::clone(piece));
            return Ok(());
        }
        let items: Vec<Bytes> = self.items().chain(piece.items.iter()).cloned().collect();
        let (unstored, tools, children) = (self.unstored, self.tools.take(), self.children.take());
        *self = Self { unstored, children, ..Self::read(&items, opener)? };
        self.tools = self.tools.take().or(tools);
        Ok(())
    }

    /// Appends a turn's piece, which other chains may share.
    pub fn append(&mut self, piece: Arc<Piece>) {
        if piece.items.is_empty() && piece.messages.is_empty() {
            return;
        }
        let piece = self.fitted(piece);
        self.open = piece.ends.after(&self.open);
        if !piece.messages.is_empty() {
            // With the comma between: the same however the messages came in pieces.
            self.message_bytes += piece.messages.len() + usize::from(self.message_bytes > 0);
        }
        self.weight += piece.weight();
        self.pieces.push(piece);
        let joined_max = PIECE_BYTES_MERGED_MAX.max(self.message_bytes / PIECE_SHARE);
        while let [.., before, last] = self.pieces.as_slice() {
            let joined = before.messages.len() + last.messages.len();
            let is_uneven = before.messages.len() > 2 * last.messages.len();
            if is_uneven || are_mixed(before, last) || joined > joined_max {
                break;
            }
            let merged = Arc::new(merge(&[before, last]));
            self.pieces.truncate(self.pieces.len() - 2);
            self.pieces.push(merged);
        }
        if self.pieces.len() >= PIECES_MAX {
            let pairs = self.pieces.chunks(2);
            self.pieces = pairs.map(|pair| Arc::new(merge(&pair.iter().collect::<Vec<_>>()))).collect();
        }
    }

    /// The piece in a form that may follow this chain: itself, but for what an interrupted turn leaves behind, and for calls that share an
    /// id. Then it is rendered anew.
    fn fitted(&self, piece: Arc<Piece>) -> Arc<Piece> {
        // A summary cannot be rendered anew here; what it left begins with a message.
        if piece.summary.is_some() {
            return piece;
        }
        if piece.ends.follow(&self.open) && !self.shares_a_call(&piece) {
            return piece;
        }
        let calls: BTreeSet<&str> = self.calls().collect();
        let called = |id: &str| calls.contains(&*id_of(id));
        let mut renderer = Renderer::after(self.open.clone(), &called);
        for item in piece.items.iter() {
            // They were read before: what is not read now is not rendered by anybody.
            let Ok(raw) = serde_json::from_slice::<&RawValue>(item) else { return piece };
            let Ok(item) = Item::parse_any("input", raw) else { return piece };
            renderer.push(&item);
        }
        let (messages, mut ends) = renderer.finish_with_ends();
        let calls = std::mem::take(&mut ends.called).iter().map(|id| id_of(id)).collect();
        let (items, media, passed) = (Arc::clone(&piece.items), piece.media, piece.passed.clone());
        Arc::new(Piece { messages: Bytes::from(messages), items, calls, ends, media, passed, ..Piece::default() })
    }

    fn calls(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().flat_map(|piece| piece.calls.iter().map(|call| &**call))
    }

    fn shares_a_call(&self, piece: &Piece) -> bool {
        let new: BTreeSet<&str> = piece.calls.iter().map(|call| &**call).collect();
        !new.is_empty() && self.calls().any(|call| new.contains(call))
    }

    /// The first of the outputs' ids whose call is neither in this chain nor among `new`.
    pub fn orphan<'a>(&self, outputs: &'a [Arc<str>], new: &[Arc<str>]) -> Option<&'a Arc<str>> {
        let mut absent: BTreeSet<&str> = outputs.iter().map(|id| &**id).collect();
        for call in new.iter().map(|call| &**call).chain(self.calls()) {
            if absent.is_empty() {
                break;
            }
            absent.remove(call);
        }
        outputs.iter().find(|id| absent.contains(&***id))
    }

    /// The piece follows this chain as it was rendered, whatever comes behind it.
    #[must_use]
    pub fn is_followed_by(&self, piece: &Piece) -> bool {
        piece.ends.follow(&self.open)
    }

    /// What is to be said behind the messages where calls are not answered and nothing follows.
    #[must_use]
    pub fn closing(&self) -> Option<Bytes> {
        (!self.open.is_empty()).then(|| Bytes::from(unanswered(&self.open)))
    }

    /// Tools were called at its end, and not all have answered.
    #[must_use]
    pub fn has_open_calls(&self) -> bool {
        !self.open.is_empty()
    }

    /// Appends all of another chain, sharing its pieces.
    pub fn extend(&mut self, other: &Self) {
        if self.pieces.is_empty() && self.tools.is_none() {
            self.clone_from(other);
            return;
        }
        other.pieces.iter().for_each(|piece| self.append(Arc::clone(piece)));
        if let Some(tools) = &other.tools {
            self.add_tools(&tools.set);
        }
    }

    /// Adds the tools of an `additional_tools` item.
    pub fn add_tools(&mut self, tools: &ToolSet) {
        let all = match &self.tools {
            Some(known) => known.set.with(tools),
            None => tools.clone(),
        };
        self.tools = Some(Arc::new(Tools::new(all)));
    }

    #[must_use]
    pub fn tools(&self) -> Option<&Arc<Tools>> {
        self.tools.as_ref()
    }

    /// The pieces of the `messages` array; none is empty.
    pub fn messages(&self) -> impl Iterator<Item = &Bytes> {
        self.pieces.iter().map(|piece| &piece.messages).filter(|messages| !messages.is_empty())
    }

    /// Something in it was not to be stored, and so nothing that goes on from it is.
    #[must_use]
    pub fn is_unstored(&self) -> bool {
        self.unstored
    }

    pub fn mark_unstored(&mut self) {
        self.unstored = true;
    }

    /// Children whose results have not joined it, by their ids.
    #[must_use]
    pub fn children(&self) -> &[Arc<str>] {
        self.children.as_deref().unwrap_or_default()
    }

    pub fn wait_for(&mut self, children: Vec<Arc<str>>) {
        self.children = (!children.is_empty()).then(|| children.into());
    }

    /// Its name by how it begins: `name` is asked once.
    pub fn root(&mut self, name: impl FnOnce() -> SessionKey) -> SessionKey {
        *self.root.get_or_insert_with(name)
    }

    #[must_use]
    pub fn pieces(&self) -> &[Arc<Piece>] {
        &self.pieces
    }

    /// Every item's JSON, in order.
    pub fn items(&self) -> impl Iterator<Item = &Bytes> {
        self.pieces.iter().flat_map(|piece| piece.items.iter())
    }

    /// Bytes of rendered messages: what an engine reads.
    #[must_use]
    pub fn message_bytes(&self) -> usize {
        self.message_bytes
    }

    /// Those of the outputs' ids under which no tool was called.
    #[must_use]
    pub fn orphans(&self, outputs: Vec<Arc<str>>) -> Vec<Arc<str>> {
        let mut absent: BTreeSet<Arc<str>> = outputs.iter().cloned().collect();
        // An output comes soon after its call.
        for call in self.pieces.iter().rev().flat_map(|piece| piece.calls.iter().rev()) {
            if absent.is_empty() {
                return Vec::new();
            }
            absent.remove(call);
        }
        outputs.into_iter().filter(|id| absent.contains(id)).collect()
    }

    /// Those of the ids that none of its items has.
    pub fn lacks<'a>(&self, ids: impl Iterator<Item = &'a Arc<str>>) -> Vec<Arc<str>> {
        let mut absent: BTreeSet<Arc<str>> = ids.cloned().collect();
        for item in self.items() {
            if absent.is_empty() {
                break;
            }
            if let Some(id) = item_id(item) {
                absent.remove(&*id);
            }
        }
        absent.into_iter().collect()
    }

    /// What the chain holds in memory, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.weight
    }
}

/// What was counted and what was not, or passed by a guard and not: merged, that would be lost.
fn are_mixed(one: &Piece, other: &Piece) -> bool {
    one.tally.known().is_some() != other.tally.known().is_some() || one.passed.mark() != other.passed.mark()
}

fn merge(pieces: &[&Arc<Piece>]) -> Piece {
    let mut messages = Vec::with_capacity(pieces.iter().map(|piece| piece.messages.len() + 1).sum());
    let ends = pieces.iter().map(|piece| piece.ends.clone()).reduce(|ends, next| ends.and(&next)).unwrap_or_default();
    for piece in pieces.iter().filter(|piece| !piece.messages.is_empty()) {
        if !messages.is_empty() {
            messages.push(b',');
        }
        messages.extend_from_slice(&piece.messages);
    }
    let items = Arc::new(pieces.iter().flat_map(|piece| piece.items.iter().cloned()).collect());
    let calls = pieces.iter().flat_map(|piece| piece.calls.iter().cloned()).collect();
    let tally = pieces.iter().map(|piece| piece.tally.clone()).reduce(|sum, tally| sum.and(&tally)).unwrap_or_default();
    let media = pieces.iter().map(|piece| piece.media).fold(Media::default(), Media::and);
    let summary = pieces.iter().filter_map(|piece| piece.summary).max();
    let mut marks = pieces.iter().map(|piece| piece.passed.mark());
    let mark = marks.next().filter(|first| marks.all(|mark| mark == *first));
    let passed = Passed::by(mark.unwrap_or(0));
    Piece { messages: Bytes::from(messages), items, calls, tally, media, ends, summary, passed }
}

/// Items read and rendered: a piece, and what it asks of the model.
#[derive(Debug, Default)]
pub struct Rendered {
    pub piece: Piece,
    /// The ids of the calls whose outputs the items bring.
    pub outputs: Vec<Arc<str>>,
    /// Places among the piece's items that hold a reference, and whose: to be resolved before the piece is used.
    pub references: Vec<(usize, Arc<str>)>,
    pub tools: Option<ToolSet>,
    pub media: MediaParts,
    /// The last message may still grow by what follows: this cannot be rendered apart from it.
    pub ends_open: bool,
    /// The last item is a `compaction_trigger`.
    pub ends_in_trigger: bool,
}

/// The paths of the first parts that not every model takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MediaParts {
    pub image: Option<Arc<str>>,
    pub file: Option<Arc<str>>,
}

impl MediaParts {
    /// Those of both, `later` behind this.
    #[must_use]
    pub fn or(&self, later: &Self) -> Self {
        let first = |of: fn(&Self) -> &Option<Arc<str>>| of(self).as_ref().or(of(later).as_ref()).cloned();
        Self { image: first(|parts| &parts.image), file: first(|parts| &parts.file) }
    }

    /// What `item` has of them, which stands at `path`.
    fn see(&mut self, item: &Item<'_>, path: impl Fn() -> String) {
        let Some((name, parts)) = item.parts() else { return };
        for (index, part) in parts.iter().enumerate() {
            let seen = match part {
                Part::Text(_) => continue,
                Part::Image { .. } => &mut self.image,
                Part::File { .. } => &mut self.file,
            };
            seen.get_or_insert_with(|| format!("{}.{name}[{index}]", path()).into());
        }
    }
}

/// Reads and renders raw items; `path` is the array's name in errors.
///
/// # Errors
/// The first item that is wrong, by its path.
pub fn render_items(path: &str, items: &[&RawValue], opener: Opener<'_>) -> Result<Rendered, ParseError> {
    let mut reading = Reading::new(path, 0, opener);
    for raw in items {
        reading.push(raw, Bytes::copy_from_slice(raw.get().as_bytes()))?;
    }
    Ok(reading.finish())
}

/// Reads and renders items that were read before.
///
/// # Errors
/// As [`render_items`].
pub fn render_again<'a>(
    items: impl IntoIterator<Item = &'a Bytes>,
    opener: Opener<'_>,
) -> Result<Rendered, ParseError> {
    let mut reading = Reading { is_ours: true, ..Reading::new("input", 0, opener) };
    for item in items {
        reading.push(raw_item(item)?, item.clone())?;
    }
    Ok(reading.finish())
}

/// Items on their way to a piece.
pub struct Reading<'a> {
    path: &'a str,
    /// The place of the first item in its array.
    first: usize,
    opener: Opener<'a>,
    /// The items were read before, and kept by us since.
    is_ours: bool,
    renderer: Renderer<'static>,
    rendered: Rendered,
    /// For the tools to come.
    tool_places: Range<usize>,
    cut: Option<Cut>,
}

/// The last of the summaries that take the place of all before them.
struct Cut {
    place: usize,
    summary: Summary,
    /// Those behind it that stand beside what came before them, by their places.
    beside: BTreeMap<usize, Summary>,
}

impl<'a> Reading<'a> {
    /// Begins with the item at `first` of the array `path`.
    #[must_use]
    pub fn new(path: &'a str, first: usize, opener: Opener<'a>) -> Self {
        let (renderer, rendered) = (Renderer::default(), Rendered::default());
        let tool_places = 0..opener.tools_max;
        Self { path, first, opener, is_ours: false, renderer, rendered, tool_places, cut: None }
    }

    /// Takes an item; `json` are its bytes, to be kept.
    ///
    /// # Errors
    /// The item is wrong.
    pub fn push(&mut self, raw: &RawValue, json: Bytes) -> Result<(), ParseError> {
        let place = self.rendered.piece.items.len();
        let path = element(self.path, self.first + place);
        let item = match self.opener.takes {
            Takes::Any => Item::parse_any(&path, raw)?,
            Takes::Own | Takes::Sealed if self.is_ours => Item::parse_any(&path, raw)?,
            // A server that makes items which nobody here knows may have made it: its client brings it back.
            Takes::Sealed => Item::parse_unknown(&path, raw)?,
            Takes::Own => Item::parse(&path, raw)?,
        };
        let is_behind_trigger = std::mem::take(&mut self.rendered.ends_in_trigger);
        // A trigger that its turn did not answer, since that ended before, stays in what was kept.
        if is_behind_trigger && !self.is_ours && !matches!(item, Item::Compaction { .. }) {
            let trigger = element(self.path, self.first + place - 1);
            let message = format!("Invalid '{trigger}': a 'compaction_trigger' must be the last item.");
            return Err(ParseError { reason: Reason::Value, message, param: Some(trigger) });
        }
        match &item {
            Item::AdditionalTools { tools } => {
                let set = self.rendered.tools.get_or_insert_default();
                let places = if self.is_ours { 0..usize::MAX } else { self.tool_places.clone() };
                self.tool_places = read_tools(set, &format!("{path}.tools"), tools, places)?;
            }
            // A chat backend is not told of it; but a blob that is not this caller's is no blob to pass around.
            Item::Reasoning { sealed: Some(sealed) } if !sealed.is_empty() && !self.is_ours => {
                self.opener.check_reasoning(sealed, || format!("{path}.encrypted_content"))?;
            }
            Item::Compaction { sealed } => {
                let param = || format!("{path}.encrypted_content");
                let content = self.opener.open(Purpose::Compaction, sealed, param)?;
                let summary = Summary::of_content(&content).ok_or_else(|| SealError::NotABlob.at(param()))?;
                self.summarise(summary, is_behind_trigger);
            }
            Item::Reference { id } => self.rendered.references.push((place, Arc::from(&**id))),
            Item::CompactionTrigger => self.rendered.ends_in_trigger = true,
            Item::Message { .. }
            | Item::Result { .. }
            | Item::Call { .. }
            | Item::CallOutput { .. }
            | Item::Reasoning { .. }
            | Item::NotForwarded => {}
        }
        if self.cut.is_none() {
            self.render(&item, place);
        }
        Arc::make_mut(&mut self.rendered.piece.items).push(json);
        Ok(())
    }

    fn render(&mut self, item: &Item<'_>, place: usize) {
        let (path, first) = (self.path, self.first);
        self.rendered.media.see(item, || element(path, first + place));
        if let Item::CallOutput { call_id, .. } = item {
            self.rendered.outputs.push(id_of(call_id));
        }
        self.renderer.push(item);
    }

    /// What an earlier cut left is not rendered before the end: a later one may take its place.
    fn summarise(&mut self, summary: Summary, is_behind_trigger: bool) {
        let place = self.rendered.piece.items.len();
        let of_piece = &mut self.rendered.piece.summary;
        if is_behind_trigger || summary.scope == Scope::All {
            *of_piece = Some(Scope::All);
            self.cut = Some(Cut { place, summary, beside: BTreeMap::new() });
            return;
        }
        *of_piece = (*of_piece).max(Some(Scope::Beside));
        match &mut self.cut {
            Some(cut) => drop(cut.beside.insert(place, summary)),
            None => summary.render(&mut self.renderer),
        }
    }

    /// The summary takes the place of all before it, but for what is kept of that. The items stay as they came.
    fn render_cut(&mut self, cut: &Cut) {
        let items = Arc::clone(&self.rendered.piece.items);
        // They were read before.
        let read = |item| raw_item(item).and_then(|raw| Item::parse("input", raw)).unwrap_or(Item::NotForwarded);
        let parsed: Vec<Item<'_>> = items.iter().map(read).collect();
        let Kept { standing, unanswered } = Kept::of(parsed.get(..cut.place).unwrap_or_default());
        self.renderer = Renderer::default();
        self.rendered.outputs.clear();
        self.rendered.media = MediaParts::default();
        for (place, item) in standing.into_iter().filter_map(|at| Some((at, parsed.get(at)?))) {
            self.render(item, place);
        }
        cut.summary.render(&mut self.renderer);
        for (place, item) in unanswered.into_iter().filter_map(|at| Some((at, parsed.get(at)?))) {
            self.render(item, place);
        }
        for (place, item) in parsed.iter().enumerate().skip(cut.place) {
            if let Some(summary) = cut.beside.get(&place) {
                summary.render(&mut self.renderer);
            }
            self.render(item, place);
        }
    }

    #[must_use]
    pub fn finish(mut self) -> Rendered {
        if let Some(cut) = self.cut.take() {
            self.render_cut(&cut);
        }
        let mut rendered = self.rendered;
        rendered.piece.media = Media { image: rendered.media.image.is_some(), file: rendered.media.file.is_some() };
        rendered.ends_open = self.renderer.is_open();
        let (messages, mut ends) = self.renderer.finish_with_ends();
        rendered.piece.calls = std::mem::take(&mut ends.called).iter().map(|id| id_of(id)).collect();
        (rendered.piece.messages, rendered.piece.ends) = (Bytes::from(messages), ends);
        rendered
    }
}

fn element(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

/// The id that an item has, if it has one.
fn item_id(item: &[u8]) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        id: Option<Cow<'a, str>>,
    }
    serde_json::from_slice::<Named<'_>>(item).ok()?.id
}

/// # Errors
/// What is no item.
pub fn parse_again(items: &[Bytes]) -> Result<Vec<Item<'_>>, ParseError> {
    items.iter().map(|item| Item::parse_any("input", raw_item(item)?)).collect()
}

/// An item that was read before.
///
/// # Errors
/// It is no JSON.
pub fn raw_item(item: &Bytes) -> Result<&RawValue, ParseError> {
    let no_json = |error: serde_json::Error| ParseError {
        reason: Reason::Json,
        message: error.to_string(),
        param: Some("input".to_owned()),
    };
    serde_json::from_slice(item).map_err(no_json)
}

/// The id that a raw string stands for.
#[must_use]
pub fn id_of(raw: &str) -> Arc<str> {
    if raw.contains('\\') { json::unescape(raw).map_or_else(|| raw.into(), Arc::from) } else { raw.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::Keyring;
    use crate::session::Owner;

    fn piece(text: String) -> Arc<Piece> {
        Arc::new(Piece {
            items: Arc::new(vec![Bytes::from(text.clone())]),
            messages: Bytes::from(text),
            ..Piece::default()
        })
    }

    #[test]
    fn a_chain_is_its_turns_in_order_in_few_pieces() {
        let mut chain = Chain::default();
        let mut expected = Vec::new();
        for turn in 0..2000 {
            let text = format!("{turn}:{}", "x".repeat(turn % 300));
            chain.append(piece(text.clone()));
            expected.push(text);
            assert!(chain.pieces.len() < PIECES_MAX, "{} pieces after {turn}", chain.pieces.len());
        }
        let messages = chain.messages().map(|m| String::from_utf8(m.to_vec()).unwrap()).collect::<Vec<_>>().join(",");
        assert_eq!(messages, expected.join(","));
        let items: Vec<_> = chain.items().map(|item| String::from_utf8(item.to_vec()).unwrap()).collect();
        assert_eq!(items, expected);
    }

    #[test]
    fn a_fork_leaves_its_parent_as_it_was() {
        let mut parent = Chain::default();
        parent.append(piece("a".repeat(10)));
        let mut fork = parent.clone();
        fork.append(piece("b".repeat(10)));
        assert_eq!(parent.messages().count(), 1);
        assert_eq!(parent.items().count(), 1);
        assert_eq!(fork.items().count(), 2);
    }

    #[test]
    fn a_turn_copies_little_of_a_long_history() {
        let mut chain = Chain::default();
        for _ in 0..200 {
            chain.append(piece("y".repeat(2048)));
        }
        let before: Vec<_> = chain.pieces.iter().map(Arc::as_ptr).collect();
        chain.append(piece("z".repeat(2048)));
        let kept = chain.pieces.iter().filter(|piece| before.contains(&Arc::as_ptr(piece))).count();
        assert!(kept + 2 >= before.len(), "{kept} of {} pieces kept", before.len());
    }

    fn ring() -> Keyring {
        Keyring::new(&[7; 32], &[], 1 << 20).unwrap()
    }

    fn user(text: &str) -> Bytes {
        Bytes::from(format!(r#"{{"role":"user","content":"{text}"}}"#))
    }

    fn compaction(ring: &Keyring, content: &str) -> Bytes {
        let sealed = ring.seal(Purpose::Compaction, Owner::default(), [9; 24], content.as_bytes()).unwrap();
        Bytes::from(format!(r#"{{"type":"compaction","encrypted_content":"{sealed}"}}"#))
    }

    #[test]
    fn of_many_compactions_the_last_decides_and_what_is_before_it_is_read_once_more() {
        const PAIRS: usize = 20_000;
        let ring = ring();
        let opener = Opener { ring: &ring, owner: Owner::default(), takes: Takes::Own, tools_max: 1 };
        let all = compaction(&ring, "aall");
        let output = Bytes::from_static(br#"{"type":"function_call_output","call_id":"c","output":"x"}"#);
        let mut items: Vec<Bytes> = (0..PAIRS).flat_map(|_| [output.clone(), all.clone()]).collect();
        items.extend([user("kept"), all, user("b"), compaction(&ring, "bbeside"), user("c")]);
        let mut reading = Reading { is_ours: true, ..Reading::new("input", 0, opener) };
        for item in &items {
            reading.push(raw_item(item).unwrap(), item.clone()).unwrap();
            assert_eq!(reading.rendered.outputs.len(), 1, "nothing is rendered again before the end");
        }
        assert_eq!(reading.cut.as_ref().map(|cut| cut.place), Some(2 * PAIRS + 1));
        let rendered = reading.finish();
        assert_eq!((rendered.piece.items.len(), rendered.piece.summary), (items.len(), Some(Scope::All)));
        let messages = String::from_utf8(rendered.piece.messages.to_vec()).unwrap();
        let places = ["all\"}", "\"kept\"", "\"b\"", "beside\"}", "\"c\""].map(|text| messages.find(text).unwrap());
        assert!(places.is_sorted(), "{messages}");
        assert_eq!((messages.matches("\"role\"").count(), rendered.outputs.len()), (5, 0));
    }

    #[test]
    fn an_output_is_an_orphan_where_its_call_is_nowhere() {
        let ids = ["a", "b", "c", "d"].map(Arc::<str>::from);
        let mut chain = Chain::default();
        let (messages, calls) = (Bytes::from_static(b"x"), ids[..1].to_vec());
        chain.append(Arc::new(Piece { messages, calls, ..Piece::default() }));
        assert_eq!(chain.orphan(&ids[..2], &ids[1..2]), None);
        assert_eq!(chain.orphan(&ids, &ids[1..2]), Some(&ids[2]));
    }
}
