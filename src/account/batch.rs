//! Many blocks under one guard and one reading of the clock.
//!
//! A batch is released as a whole or not at all: the final check comes after the last block was decrypted, and
//! whatever fails wipes every output of the batch (invariant 4). Imports: `budget`, `permit`, `state`, `block`, `format`, `id`, `error`.

use std::fmt;

use super::budget::Amount;
use super::permit::{Permit, open_apart};
use super::state::Guard;
use crate::block::{Place, wipe};
use crate::error::Error;
use crate::format::frame::Detached;
use crate::id::{Aad, BlockId};

/// One block to seal in place, as [`Permit::seal_detached`] does.
pub struct SealJob<'a> {
    id: BlockId,
    aad: Aad<'a>,
    data: &'a mut [u8],
    sealed: Option<Detached>,
}

impl<'a> SealJob<'a> {
    /// Seals `data` in place.
    #[must_use]
    pub const fn new(id: BlockId, aad: Aad<'a>, data: &'a mut [u8]) -> Self {
        Self { id, aad, data, sealed: None }
    }

    /// What else has to be stored, once the batch was sealed.
    #[must_use]
    pub const fn detached(&self) -> Option<&Detached> {
        self.sealed.as_ref()
    }
}

impl fmt::Debug for SealJob<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealJob({:?}, {} bytes)", self.id, self.data.len())
    }
}

/// One block to open.
pub struct OpenJob<'a> {
    id: BlockId,
    aad: Aad<'a>,
    form: Form<'a>,
}

enum Form<'a> {
    Apart { frame: &'a [u8], out: &'a mut [u8] },
    InPlace { detached: &'a Detached, data: &'a mut [u8] },
}

impl<'a> OpenJob<'a> {
    /// Opens `frame` into `out`, as [`Permit::open_into`] does.
    #[must_use]
    pub const fn into(id: BlockId, aad: Aad<'a>, frame: &'a [u8], out: &'a mut [u8]) -> Self {
        Self { id, aad, form: Form::Apart { frame, out } }
    }

    /// Opens `data` in place, as [`Permit::open_detached`] does.
    #[must_use]
    pub const fn in_place(id: BlockId, aad: Aad<'a>, detached: &'a Detached, data: &'a mut [u8]) -> Self {
        Self { id, aad, form: Form::InPlace { detached, data } }
    }

    /// Decrypts, without the final check, which is the batch's.
    #[inline]
    fn run(&mut self, guard: &Guard<'_>) -> Result<(), Error> {
        let place = Place::block(self.id, self.aad);
        match &mut self.form {
            Form::Apart { frame, out } => open_apart(guard, &place, frame, out, || Ok(())),
            Form::InPlace { detached, data } => guard.keys(detached.head.header.generation)?.open_in_place(
                &place,
                &detached.head,
                &detached.tags,
                data,
                || Ok(()),
            ),
        }
    }

    const fn output(&mut self) -> &mut [u8] {
        match &mut self.form {
            Form::Apart { out, .. } => out,
            Form::InPlace { data, .. } => data,
        }
    }
}

impl fmt::Debug for OpenJob<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenJob({:?})", self.id)
    }
}

impl Permit<'_> {
    /// Seals every job's data in place.
    ///
    /// # Errors
    /// As [`Permit`]. Where a job is at fault, [`Error::batch_index`] tells which; jobs are checked for
    /// their limits before any is begun. Should the lease be lost in the midst, the data of *every* job is all zeros.
    pub fn seal_batch(&self, jobs: &mut [SealJob<'_>]) -> Result<(), Error> {
        let guard = self.enter()?;
        let mut cost = Amount::default();
        for (index, job) in jobs.iter().enumerate() {
            Place::block(job.id, job.aad).check(job.data.len()).map_err(|e| e.with_batch_index(index))?;
            cost = cost.plus(Amount::block(job.data.len()));
        }
        let now = guard.check_lease()?;
        let keys = guard.sealing(now);
        guard.pay(keys, cost)?;
        let sealed = jobs.iter_mut().enumerate().try_for_each(|(index, job)| {
            let place = Place::block(job.id, job.aad);
            let head = keys.fresh_head(&place, now);
            let tags = keys.seal_in_place(&place, &head, job.data).map_err(|e| e.with_batch_index(index))?;
            job.sealed = Some(Detached { head, tags });
            Ok(())
        });
        let done = sealed.and_then(|()| guard.check_epoch());
        if done.is_err() {
            jobs.iter_mut().for_each(|job| {
                job.sealed = None;
                wipe(job.data);
            });
        } else {
            jobs.iter().for_each(|job| guard.tally().sealed(job.data.len()));
        }
        done
    }

    /// Opens every job's block.
    ///
    /// # Errors
    /// As [`Permit`]. Where a job is at fault, [`Error::batch_index`] tells the first one. Once the first block was begun,
    /// any failure leaves the outputs of *every* job all zeros; data opened in place is lost with it.
    pub fn open_batch(&self, jobs: &mut [OpenJob<'_>]) -> Result<(), Error> {
        let guard = self.enter()?;
        let opened = jobs
            .iter_mut()
            .enumerate()
            .try_for_each(|(index, job)| job.run(&guard).map_err(|e| e.with_batch_index(index)))
            .and_then(|()| guard.release());
        if opened.is_err() {
            jobs.iter_mut().for_each(|job| wipe(job.output()));
        } else {
            jobs.iter_mut().for_each(|job| guard.tally().opened(job.output().len()));
        }
        opened
    }
}
