//! The one lock of the ledger. Tests put a lock in its place whose waits are scheduled, so that every order of events is
//! tried; it is poisoned by nobody.

use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;

/// A lock around `T`.
#[derive(Debug)]
pub enum Mutex<T> {
    /// The standard library's.
    Real(std::sync::Mutex<T>),
    /// One that a scheduler knows.
    #[cfg(test)]
    Scheduled(shuttle::sync::Mutex<T>),
}

/// What the lock gives access by; the lock is given back when it drops.
pub enum Guard<'a, T> {
    /// Of [`Mutex::Real`].
    Real(std::sync::MutexGuard<'a, T>),
    /// Of [`Mutex::Scheduled`].
    #[cfg(test)]
    Scheduled(shuttle::sync::MutexGuard<'a, T>),
}

impl<T> Mutex<T> {
    /// Around a value.
    pub fn new(value: T) -> Self {
        Self::Real(std::sync::Mutex::new(value))
    }

    /// Waits for it. A panic of somebody who held it left what was decided, not what was half done: see
    /// [`Keeper`](super::Keeper).
    pub fn lock(&self) -> Guard<'_, T> {
        match self {
            Self::Real(lock) => Guard::Real(lock.lock().unwrap_or_else(PoisonError::into_inner)),
            #[cfg(test)]
            Self::Scheduled(lock) => Guard::Scheduled(lock.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Real(guard) => guard,
            #[cfg(test)]
            Self::Scheduled(guard) => guard,
        }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        match self {
            Self::Real(guard) => guard,
            #[cfg(test)]
            Self::Scheduled(guard) => guard,
        }
    }
}
