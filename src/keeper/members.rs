//! The accounts at one authority, in no order. One by itself takes no heap: where there are many lanes, that is the usual number.
//! Imports: `account` (for its keys).

use crate::account::AccountKey;

/// Each has a place, by which it is taken out again.
#[derive(Debug)]
pub(super) enum Members {
    One(AccountKey),
    Many(Vec<AccountKey>),
}

impl Default for Members {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Members {
    pub(super) fn as_slice(&self) -> &[AccountKey] {
        match self {
            Self::One(key) => std::slice::from_ref(key),
            Self::Many(keys) => keys,
        }
    }

    /// Returns its place.
    pub(super) fn add(&mut self, key: AccountKey) -> u32 {
        let place = self.as_slice().len();
        match self {
            Self::One(first) => *self = Self::Many(vec![*first, key]),
            Self::Many(keys) if keys.is_empty() => *self = Self::One(key),
            Self::Many(keys) => keys.push(key),
        }
        u32::try_from(place).unwrap_or(u32::MAX)
    }

    /// Takes out `key`, if that is at `place`. Returns who is there from now on: the last one.
    pub(super) fn remove(&mut self, key: AccountKey, place: u32) -> Option<AccountKey> {
        let place = place as usize;
        if self.as_slice().get(place) != Some(&key) {
            return None;
        }
        match self {
            Self::One(_) => {
                *self = Self::default();
                None
            }
            Self::Many(keys) => {
                keys.swap_remove(place);
                keys.get(place).copied()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn key(number: u64) -> AccountKey {
        AccountKey::new(number)
    }

    #[test]
    fn b12_whoever_leaves_an_authority_leaves_its_place_to_the_last() {
        let mut members = Members::default();
        assert_eq!(members.add(key(7)), 0);
        assert_eq!(members.remove(key(8), 0), None, "another one is there");
        assert_eq!(members.as_slice(), [key(7)]);
        assert_eq!([8, 9].map(|number| members.add(key(number))), [1, 2]);
        assert_eq!(members.remove(key(7), 0), Some(key(9)));
        assert_eq!(members.as_slice(), [key(9), key(8)]);
        assert_eq!(members.remove(key(8), 1), None, "it was the last");
        assert_eq!(members.remove(key(9), 0), None);
        assert!(members.as_slice().is_empty());
        assert_eq!(members.add(key(10)), 0);
        assert_eq!(members.as_slice(), [key(10)]);
    }
}
