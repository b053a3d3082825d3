//! What was made of what, so that it is not made again.

use std::collections::BTreeMap;
use std::mem;

/// What was made this time and the time before: by a name, and by what it was made of. What is not asked for between two
/// [turns](Kept::turn) is let go of.
#[derive(Debug)]
pub(super) struct Kept<K, I, O> {
    before: BTreeMap<K, Vec<(I, O)>>,
    now: BTreeMap<K, Vec<(I, O)>>,
}

impl<K, I, O> Default for Kept<K, I, O> {
    fn default() -> Self {
        Self {
            before: BTreeMap::new(),
            now: BTreeMap::new(),
        }
    }
}

impl<K: Ord, I: PartialEq, O: Clone> Kept<K, I, O> {
    /// Begins the next time.
    pub(super) fn turn(&mut self) {
        self.before = mem::take(&mut self.now);
    }

    /// What was made of this, or else is made of it now.
    pub(super) fn made<E>(
        &mut self,
        name: K,
        of: I,
        make: impl FnOnce(&I) -> Result<O, E>,
    ) -> Result<O, E> {
        let before = self.before.get_mut(&name);
        let now = self.now.entry(name).or_default();
        if let Some((_, made)) = now.iter().find(|(own, _)| *own == of) {
            return Ok(made.clone());
        }
        let found = before.and_then(|all| {
            let place = all.iter().position(|(own, _)| *own == of)?;
            Some(all.swap_remove(place))
        });
        let (of, made) = match found {
            Some(found) => found,
            None => {
                let made = make(&of)?;
                (of, made)
            }
        };
        now.push((of, made.clone()));
        Ok(made)
    }
}
