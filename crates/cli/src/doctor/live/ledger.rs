//! What the questions cost: no question is asked that could pass the cap. Knows no question.

/// Tokens, prompts and answers together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ledger {
    pub tokens_max: u64,
    pub spent: u64,
    /// What a question may cost is not what it costs: limits are not heeded.
    is_open: bool,
}

impl Ledger {
    pub fn new(tokens_max: u64) -> Self {
        Self { tokens_max, spent: 0, is_open: false }
    }

    /// # Errors
    /// A question of so many tokens could pass the cap; why, for people.
    pub fn allow(&self, tokens: u64) -> Result<(), String> {
        if self.is_open {
            return Err("not asked: limits on output are not heeded, so that nothing would keep the cap".to_owned());
        }
        let (spent, tokens_max) = (self.spent, self.tokens_max);
        match spent.saturating_add(tokens) <= tokens_max {
            true => Ok(()),
            false => {
                Err(format!("not asked: it may cost {tokens} tokens, {spent} of {tokens_max} are spent (--tokens-max)"))
            }
        }
    }

    /// A question cost so many tokens; more than it was allowed, and no other one is asked.
    pub fn spend(&mut self, tokens: u64, allowed: u64) {
        self.spent = self.spent.saturating_add(tokens);
        self.is_open |= tokens > allowed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cap_may_be_reached_and_not_passed() {
        let mut ledger = Ledger::new(100);
        assert!(ledger.allow(100).is_ok() && ledger.allow(101).is_err());
        ledger.spend(60, 60);
        assert!(ledger.allow(40).is_ok());
        assert!(ledger.allow(41).unwrap_err().contains("60 of 100"));
    }

    #[test]
    fn what_costs_more_than_it_may_is_the_last() {
        let mut ledger = Ledger::new(100);
        ledger.spend(11, 10);
        assert_eq!(ledger.spent, 11);
        assert!(ledger.allow(1).unwrap_err().contains("not heeded"));
    }
}
