//! Which rows have which model, by every name that their models go by. Proportional to the names that workers have, not
//! to names times workers: a hive may not make the queen large by inventing models.

use super::super::Spec;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// For each name the words that are not 0, by block.
#[derive(Debug, Default)]
pub struct Models {
    names: HashMap<Arc<str>, BTreeMap<u32, u64>>,
}

impl Models {
    /// A row has the names of this spec.
    pub fn add(&mut self, spec: &Spec, block: u32, bit: u64) {
        for name in spec.models() {
            let words = match self.names.get_mut(name) {
                Some(words) => words,
                None => self.names.entry(Arc::from(name)).or_default(),
            };
            *words.entry(block).or_default() |= bit;
        }
    }

    /// It has them no more.
    pub fn remove(&mut self, spec: &Spec, block: u32, bit: u64) {
        for name in spec.models() {
            let Some(words) = self.names.get_mut(name) else { continue };
            if let Some(word) = words.get_mut(&block) {
                *word &= !bit;
                if *word == 0 {
                    words.remove(&block);
                }
            }
            if words.is_empty() {
                self.names.remove(name);
            }
        }
    }

    /// Rows of any name that fits: a word for each of so many blocks. Looks at each name once, not at each worker.
    pub fn words(&self, blocks: usize, fits: impl Fn(&str) -> bool) -> Vec<u64> {
        let mut all = vec![0; blocks];
        self.names.iter().filter(|(name, _)| fits(name)).for_each(|(_, words)| merge(&mut all, words));
        all
    }

    /// Rows of this name.
    pub fn words_of(&self, blocks: usize, name: &str) -> Vec<u64> {
        let mut all = vec![0; blocks];
        if let Some(words) = self.names.get(name) {
            merge(&mut all, words);
        }
        all
    }
}

fn merge(all: &mut [u64], words: &BTreeMap<u32, u64>) {
    for (block, word) in words {
        if let Some(into) = all.get_mut(*block as usize) {
            *into |= word;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::WorkerSpec;

    #[test]
    fn a_name_that_nobody_has_any_more_takes_no_room() {
        let spec = |names: &[&str]| {
            let model_names = names.iter().map(|name| (*name).to_owned()).collect();
            Spec::of(&WorkerSpec { model: Some("a".into()), model_names, ..WorkerSpec::default() })
        };
        let mut models = Models::default();
        models.add(&spec(&["a", "b"]), 1, 4);
        models.add(&spec(&[]), 1, 8);
        assert_eq!(models.words_of(2, "a"), [0, 12]);
        assert_eq!(models.words(2, |name| name == "b"), [0, 4]);
        models.remove(&spec(&["a", "b"]), 1, 4);
        assert_eq!((models.words_of(2, "a"), models.names.len()), (vec![0, 8], 1));
        models.remove(&spec(&[]), 1, 8);
        assert!(models.names.is_empty());
    }
}
