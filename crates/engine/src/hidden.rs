//! What an endpoint was told in confidence, so that nothing of it goes on to a client where the endpoint repeats it: some servers quote the
//! key in an error. Knows no protocol.

use std::fmt;
use std::sync::Arc;

/// Shorter texts are no secrets, and would be found everywhere.
const BYTES_MIN: usize = 8;
const MASK: &str = "***";

/// A text that is not shown. `Debug` shows nothing of it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Hidden(Option<Arc<str>>);

impl Hidden {
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self((text.len() >= BYTES_MIN).then(|| text.into()))
    }

    /// Masks it wherever it stands in `text`.
    pub fn mask(&self, text: &mut String) {
        if let Some(hidden) = self.0.as_deref().filter(|hidden| text.contains(hidden)) {
            *text = text.replace(hidden, MASK);
        }
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_masked_wherever_it_stands_and_shown_nowhere() {
        let hidden = Hidden::new("sk-hidden");
        let masked = |hidden: &Hidden, text: &str| {
            let mut text = text.to_owned();
            hidden.mask(&mut text);
            text
        };
        assert_eq!(masked(&hidden, "sk-hidden is no key: (sk-hidden)"), "*** is no key: (***)");
        assert_eq!(masked(&hidden, "sk-hidde"), "sk-hidde");
        assert_eq!(masked(&Hidden::new("a"), "a cat"), "a cat");
        assert_eq!(masked(&Hidden::default(), "a cat"), "a cat");
        assert_eq!(format!("{hidden:?}"), "Hidden(..)");
    }
}
