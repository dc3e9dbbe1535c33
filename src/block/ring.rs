//! All generations that an account can open, and which of them seals. Imports: `block`, `clock`, `id`.

use super::GenerationKeys;
use crate::clock::Moment;
use crate::id::Generation;

/// The keys of an account, the newest generation first. Made anew at each verified unwrap.
#[derive(Debug)]
pub(crate) struct KeyRing {
    newest: GenerationKeys,
    /// Most accounts of a fleet have one generation.
    older: Option<Box<Older>>,
}

#[derive(Debug)]
struct Older {
    /// From when the newest seals, in nanoseconds of the wall clock: until then some machine may not have it (contract E4).
    active_from: u64,
    /// Highest number first; at least one.
    keys: Box<[GenerationKeys]>,
}

impl KeyRing {
    /// An account with one generation.
    pub(crate) fn new(newest: GenerationKeys) -> Self {
        Self { newest, older: None }
    }

    /// `older` has the highest number first. `active_from` is in nanoseconds of the wall clock.
    pub(crate) fn with_older(newest: GenerationKeys, active_from: u64, older: Vec<GenerationKeys>) -> Self {
        let keys = older.into_boxed_slice();
        // Where there is no other one, the newest seals.
        let older = (!keys.is_empty()).then(|| Box::new(Older { active_from, keys }));
        Self { newest, older }
    }

    /// The generation that new data is sealed under at `now`. Only the newest can be one that is not used yet: the next one is
    /// made once it is.
    #[inline]
    pub(crate) fn sealing(&self, now: Moment) -> &GenerationKeys {
        match &self.older {
            None => &self.newest,
            Some(older) if now.wall_nanos() >= older.active_from => &self.newest,
            Some(older) => older.keys.first().unwrap_or(&self.newest),
        }
    }

    #[inline]
    pub(crate) fn get(&self, generation: Generation) -> Option<&GenerationKeys> {
        if self.newest.generation() == generation { Some(&self.newest) } else { self.get_older(generation) }
    }

    #[cold]
    fn get_older(&self, generation: Generation) -> Option<&GenerationKeys> {
        let keys = &self.older.as_ref()?.keys;
        let at = keys.binary_search_by(|keys| generation.cmp(&keys.generation())).ok()?;
        keys.get(at)
    }
}
