//! The classes there are: as many as different wishes, up to a bound.

use super::Feed;
use super::class::Class;
use super::wanted::Wanted;
use crate::fleet::Met;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};

/// There are as many classes as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} different filters and masks are being watched, and there may be no more at once")]
pub struct TooManyClasses(pub usize);

impl Feed {
    /// The class of those who want this; `None` for those who want everything.
    pub fn class(&self, wanted: Wanted) -> Result<Option<Arc<Class>>, TooManyClasses> {
        if wanted.is_everything() {
            return Ok(None);
        }
        let mut classes = self.classes.lock().unwrap_or_else(PoisonError::into_inner);
        classes.retain(|class| class.strong_count() > 0);
        let same = classes.iter().filter_map(Weak::upgrade).find(|class| class.wanted == wanted);
        if same.is_some() {
            return Ok(same);
        }
        if classes.len() >= self.max_classes {
            self.told.class_refused();
            return Err(TooManyClasses(self.max_classes));
        }
        let class = Arc::new(Class::new(wanted, self.revision()));
        classes.push(Arc::downgrade(&class));
        Ok(Some(class))
    }

    /// The bound of classes, as it was met.
    pub fn classes_met(&self) -> Met {
        (Some(self.class_count()), self.max_classes, Some(self.told.classes_refused.load(Ordering::Relaxed)))
    }

    /// How many classes there are.
    pub fn class_count(&self) -> usize {
        let classes = self.classes.lock().unwrap_or_else(PoisonError::into_inner);
        classes.iter().filter(|class| class.strong_count() > 0).count()
    }
}
