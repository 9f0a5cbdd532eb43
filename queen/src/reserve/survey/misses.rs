//! Why the nearest do not fit.

use std::fmt::Display;

/// So many near misses are named.
const NAMED: usize = 3;

/// Why one does not fit, and how near it is; the nearest is 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Miss {
    far: u8,
    why: String,
}

impl Miss {
    pub fn of(far: u8, why: impl Into<String>) -> Self {
        Self { far, why: why.into() }
    }

    /// With the name of what does not fit before it.
    pub fn named(self, name: impl Display) -> Self {
        Self { why: format!("{name} {}", self.why), ..self }
    }
}

#[cfg(test)]
impl Miss {
    /// Whether this is what it tells.
    pub fn is(&self, sentence: &str) -> bool {
        self.why == sentence
    }
}

/// The nearest.
#[derive(Debug, Default)]
pub struct Misses(Vec<Miss>);

impl Misses {
    /// Keeps one if it is nearer than another that is kept. The same is told once.
    pub fn add(&mut self, miss: Miss) {
        if self.0.contains(&miss) {
            return;
        }
        let at = self.0.partition_point(|kept| kept.far <= miss.far);
        self.0.insert(at, miss);
        self.0.truncate(NAMED);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// "a; b; c", or that there is nothing.
    pub fn told(&self) -> String {
        let sentences: Vec<&str> = self.0.iter().map(|miss| miss.why.as_str()).collect();
        if sentences.is_empty() { "nothing like it is known here".to_owned() } else { sentences.join("; ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_nearest_are_told_once_each() {
        let mut misses = Misses::default();
        assert_eq!(misses.told(), "nothing like it is known here");
        for (far, why) in [(5, "e"), (1, "b"), (9, "z"), (0, "a"), (1, "b"), (1, "c")] {
            misses.add(Miss::of(far, why));
        }
        assert_eq!(misses.told(), "a; b; c");
    }
}
