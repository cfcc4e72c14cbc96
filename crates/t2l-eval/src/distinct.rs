//! What is named twice is scored once: twice would pass for twice as many examples.

use std::collections::BTreeSet;

use t2l_data::PromptMode;

use crate::Condition;

/// The first item of every key, in order.
pub fn distinct<T: Copy, K: Ord>(items: impl IntoIterator<Item = T>, key: impl Fn(T) -> K) -> Vec<T> {
    let mut seen = BTreeSet::new();
    items.into_iter().filter(|item| seen.insert(key(*item))).collect()
}

/// Every mode once, with every condition that any mention of it has, once.
pub(crate) fn distinct_modes(modes: &[(PromptMode, Vec<Condition>)]) -> Vec<(PromptMode, Vec<Condition>)> {
    let conditions = |mode: PromptMode| {
        let all = modes.iter().filter(|(m, _)| *m == mode).flat_map(|(_, conditions)| conditions.iter().copied());
        (mode, distinct(all, |c| c))
    };
    distinct(modes.iter().map(|(mode, _)| *mode), PromptMode::name).into_iter().map(conditions).collect()
}

#[cfg(test)]
mod tests {
    use t2l_data::PromptMode::{Definition, Input};

    use super::*;
    use crate::Condition::{Base, Other, Own};

    #[test]
    fn order_is_kept_and_repeats_are_dropped() {
        assert_eq!(distinct([3, 1, 3, 2, 1], |n| n), [3, 1, 2]);
        let modes = [(Input, vec![Own, Own, Base]), (Definition, vec![Own]), (Input, vec![Base, Other])];
        assert_eq!(distinct_modes(&modes), [(Input, vec![Own, Base, Other]), (Definition, vec![Own])]);
    }
}
