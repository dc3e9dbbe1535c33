//! Holds the published bounds to a history. It knows the formulas, the truth and the reads, and nothing of the library.
//!
//! ```text
//! J = min(1.1 r, 60 s)      F = J + 6 s + c
//! stale        undisturbed, no release begins later than J + c + 100 ms after a revocation was acknowledged
//! reopened     undisturbed, nothing is released between a read that said `Revoked` and the customer's giving back
//! usable       whatever happens, no release begins later than F + G into a time without access
//! recovered    how long after access was back the first release ended
//! ```
//! A release counts by its begin, which is never after the library's final check; a loss of access from when it
//! was acknowledged, a return from when it was asked for. So what is called a breach is one. Figures are taken the other way
//! round: staleness from when the revocation was *sent*.

use std::time::Duration;

use super::{CALL_DEADLINE, Change, GRACE, History, Outcome, REFRESH, Read, What, nanos};

/// The formulas' values, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// J + c.
    pub stale: u64,
    /// F.
    pub fresh: u64,
    /// F + G.
    pub usable: u64,
    /// c.
    pub call: u64,
    /// r + 1 s.
    pub recovery: u64,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Reads that were released.
    pub releases: u64,
    /// Of each revocation that an undisturbed reader saw, how long it was served.
    pub stale: Vec<u64>,
    /// The same of readers that were stopped or cut off meanwhile.
    pub stale_disturbed: Vec<u64>,
    /// How often a reader was stopped.
    pub stops: u64,
    /// How often a reader's wall clock was stepped.
    pub steps: u64,
    /// Outages: each silence of each proxy.
    pub outages: u64,
    /// Of each account in each of them, for how long it was served.
    pub used: Vec<u64>,
    /// Of these, how many were served for longer than F: in grace.
    pub graced: u64,
    /// How long each account that had been refused took to come back.
    pub recovered: Vec<u64>,
    /// Releases that break the bounds on revocations, in words.
    pub revocation_breaches: Vec<String>,
    /// Releases that break the bound on all use without access, in words.
    pub usable_breaches: Vec<String>,
}

/// A time without access, or of being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Absence {
    /// Begun between these two.
    sent: u64,
    from: u64,
    /// Ended between these two.
    until: u64,
    back: u64,
}

/// An account in a reader.
struct Subject<'a> {
    name: String,
    reads: &'a [Read],
    revoked: Vec<Absence>,
    silent: Vec<Absence>,
    stopped: Vec<Absence>,
}

impl Default for Bounds {
    fn default() -> Self {
        let interval = (REFRESH * 11 / 10).min(Duration::from_secs(60));
        let fresh = interval + Duration::from_secs(6) + CALL_DEADLINE;
        Self {
            stale: nanos(interval + CALL_DEADLINE),
            fresh: nanos(fresh),
            usable: nanos(fresh + GRACE),
            call: nanos(CALL_DEADLINE),
            recovery: nanos(REFRESH + Duration::from_secs(1)),
        }
    }
}

/// Checks one wave.
#[must_use]
pub fn check(history: &History, bounds: &Bounds) -> Findings {
    let mut findings = Findings::default();
    for process in &history.processes {
        let silent = absences(&process.changes, What::Silent, What::Speaking);
        let stopped = absences(&process.changes, What::Stopped, What::Continued);
        findings.outages += silent.len() as u64;
        findings.stops += stopped.len() as u64;
        findings.steps += process.changes.iter().filter(|change| change.what == What::Stepped).count() as u64;
        for (at, (reads, changes)) in process.reads.iter().zip(&history.keys).enumerate() {
            let subject = Subject {
                name: format!("{} {at}", process.name),
                reads,
                revoked: absences(changes, What::Revoked, What::Restored),
                silent: silent.clone(),
                stopped: stopped.clone(),
            };
            findings.releases += subject.released(0, u64::MAX).count() as u64;
            subject.revocations(bounds, &mut findings);
            subject.all_use(bounds, &mut findings);
        }
    }
    findings
}

impl Findings {
    /// Adds those of another wave.
    pub fn add(&mut self, other: Self) {
        let Self {
            releases,
            stale,
            stale_disturbed,
            stops,
            steps,
            outages,
            used,
            graced,
            recovered,
            revocation_breaches,
            usable_breaches,
        } = other;
        self.releases += releases;
        self.stale.extend(stale);
        self.stale_disturbed.extend(stale_disturbed);
        self.stops += stops;
        self.steps += steps;
        self.outages += outages;
        self.used.extend(used);
        self.graced += graced;
        self.recovered.extend(recovered);
        self.revocation_breaches.extend(revocation_breaches);
        self.usable_breaches.extend(usable_breaches);
    }
}

impl Subject<'_> {
    /// Stale and reopened.
    fn revocations(&self, bounds: &Bounds, findings: &mut Findings) {
        for absence in &self.revoked {
            let limit = absence.from + bounds.stale + SLACK;
            let disturbances = || self.silent.iter().chain(&self.stopped);
            // Served until just before: or there is nothing to see.
            if self.last_before(absence.sent).is_some_and(|read| read.outcome == Outcome::Released) {
                let last = self.released(absence.sent, absence.until).last();
                let late = last.map_or(0, |read| read.begin - absence.sent);
                if disturbances().any(|other| other.overlaps(absence.sent, limit)) {
                    findings.stale_disturbed.push(late);
                } else {
                    findings.stale.push(late);
                    for read in self.released(limit, absence.until) {
                        findings.revocation_breaches.push(self.words("stale", read, absence.from));
                    }
                }
            }
            // A call that was under way at the revocation has ended by then.
            let settled = self.between(absence.from, absence.until).iter();
            let refused = settled
                .clone()
                .find(|read| read.outcome == Outcome::Revoked && read.end > absence.from + bounds.call);
            let undisturbed = !disturbances().any(|other| other.overlaps(absence.sent, absence.until));
            if let Some(refused) = refused.filter(|_| undisturbed) {
                for read in self.released(refused.end, absence.until) {
                    findings.revocation_breaches.push(self.words("reopened", read, absence.from));
                }
            }
        }
    }

    /// Usable and recovered, over revocations and silences alike.
    fn all_use(&self, bounds: &Bounds, findings: &mut Findings) {
        let absences = joined(self.revoked.iter().chain(&self.silent).copied().collect());
        for (at, absence) in absences.iter().enumerate() {
            for read in self.released(absence.from.saturating_add(bounds.usable), absence.until) {
                findings.usable_breaches.push(self.words("usable", read, absence.from));
            }
            if self.silent.iter().any(|silence| silence.overlaps(absence.from, absence.until)) {
                let last = self.released(absence.from, absence.until).last();
                let used = last.map_or(0, |read| read.begin - absence.from);
                findings.used.push(used);
                findings.graced += u64::from(used > bounds.fresh);
            }
            let was_refused = |read: &Read| read.outcome != Outcome::Released;
            if self.last_before(absence.until).is_some_and(was_refused) {
                let next = absences.get(at + 1).map_or(u64::MAX, |next| next.sent);
                findings.recovered.extend(self.recovery(absence, next, bounds));
            }
        }
    }

    /// `None` when access was lost again, or the log ended, before it had to be back.
    fn recovery(&self, absence: &Absence, next: u64, bounds: &Bounds) -> Option<u64> {
        let first = self.released(absence.until, next).next();
        let seen = first.or(self.last_before(next))?.end;
        // Who is stopped cannot come back.
        let stops = self.stopped.iter().filter(|stop| stop.overlaps(absence.until, seen));
        let since = stops.map(|stop| stop.back).fold(absence.back, u64::max);
        let took = seen.saturating_sub(since);
        (first.is_some() || took > bounds.recovery).then_some(took)
    }

    /// The reads that begin in a time.
    fn between(&self, from: u64, until: u64) -> &[Read] {
        let at = |time| self.reads.partition_point(|read| read.begin < time);
        let until = at(until);
        &self.reads[at(from).min(until)..until]
    }

    fn released(&self, from: u64, until: u64) -> impl DoubleEndedIterator<Item = &Read> {
        self.between(from, until).iter().filter(|read| read.outcome == Outcome::Released)
    }

    fn last_before(&self, time: u64) -> Option<&Read> {
        self.between(0, time).last()
    }

    fn words(&self, rule: &str, read: &Read, from: u64) -> String {
        let late = Duration::from_nanos(read.begin - from).as_secs_f64();
        format!(
            "{rule}: account {} released {late:.3} s after access was lost, in a read of {} ns",
            self.name,
            read.end - read.begin
        )
    }
}

impl Absence {
    /// Whether any of it can have been in a time.
    const fn overlaps(&self, from: u64, until: u64) -> bool {
        self.sent < until && from < self.back
    }
}

/// Pairs of a change that takes away and the one that gives back, if it ever came.
fn absences(changes: &[Change], lost: What, back: What) -> Vec<Absence> {
    let mut found: Vec<Absence> = Vec::new();
    for change in changes {
        if change.what == lost {
            found.push(Absence { sent: change.begun, from: change.done, until: u64::MAX, back: u64::MAX });
        } else if change.what == back
            && let Some(last) = found.last_mut()
        {
            (last.until, last.back) = (change.begun, change.done);
        }
    }
    found
}

/// Where two certainly overlap, there was no access in between either.
fn joined(mut absences: Vec<Absence>) -> Vec<Absence> {
    absences.sort_by_key(|absence| absence.from);
    let mut joined: Vec<Absence> = Vec::new();
    for absence in absences {
        match joined.last_mut().filter(|last| absence.from < last.until) {
            Some(last) => {
                last.sent = last.sent.min(absence.sent);
                last.until = last.until.max(absence.until);
                last.back = last.back.max(absence.back);
            }
            None => joined.push(absence),
        }
    }
    joined
}

/// What the goal leaves to measuring: a busy machine.
pub const SLACK: u64 = 100_000_000;

#[cfg(test)]
mod tests {
    use super::super::Process;
    use super::*;

    const MS: u64 = 1_000_000;
    const S: u64 = 1000 * MS;

    /// A reader of one account that is read each 10 ms for two minutes, as `outcome` says.
    fn history(key: &[Change], process: &[Change], outcome: impl Fn(u64) -> Outcome) -> History {
        let read =
            |at: u64| Read { begin: at * 10 * MS, end: at * 10 * MS + 1, outcome: outcome(at * 10 * MS) };
        History {
            keys: vec![key.to_vec()],
            processes: vec![Process {
                name: "calm".to_owned(),
                changes: process.to_vec(),
                reads: vec![(0..12_000).map(read).collect()],
            }],
        }
    }

    fn run(key: &[Change], process: &[Change], outcome: impl Fn(u64) -> Outcome) -> Findings {
        check(&history(key, process, outcome), &Bounds::default())
    }

    const fn change(what: What, at: u64) -> Change {
        Change { what, begun: at - 5 * MS, done: at }
    }

    /// Released, but for these times.
    fn but_for(times: &'static [(u64, u64)], outcome: Outcome) -> impl Fn(u64) -> Outcome {
        move |now| {
            if times.iter().any(|(from, until)| (*from..*until).contains(&now)) {
                outcome
            } else {
                Outcome::Released
            }
        }
    }

    const LOST: [Change; 2] = [change(What::Revoked, 10 * S), change(What::Restored, 40 * S)];
    const SILENT: [Change; 2] = [change(What::Silent, 10 * S), change(What::Speaking, 40 * S)];

    #[test]
    fn the_formulas_are_the_librarys() {
        let builder = strongroom::AekCache::builder().refresh_every(REFRESH).call_deadline(CALL_DEADLINE);
        let cache = builder.outage_grace(strongroom::OutageGrace::For(GRACE)).build().unwrap();
        let bounds = Bounds::default();
        let [stale, fresh, usable] =
            [cache.staleness_bound(), cache.fresh_for(), cache.usable_for()].map(nanos);
        assert_eq!((bounds.stale, bounds.fresh, bounds.usable), (stale, fresh, usable));
        assert_eq!((stale, fresh, usable), (8600 * MS, 14_600 * MS, 18_600 * MS));
    }

    #[test]
    fn a_history_in_order_gives_its_figures_and_no_breach() {
        let found = run(&LOST, &[], but_for(&[(18 * S, 45 * S)], Outcome::Revoked));
        assert_eq!(found.stale, [8 * S - 5 * MS], "from when it was sent to the last release's begin");
        assert_eq!(found.recovered, [5 * S + 1], "from when it was done to the first release's end");
        assert_eq!(found.releases, 12_000 - 2_700);
        assert!(found.revocation_breaches.is_empty() && found.usable_breaches.is_empty(), "{found:?}");
        assert_eq!((found.outages, found.used.len(), found.stale_disturbed.len()), (0, 0, 0));
    }

    #[test]
    fn a_release_past_j_and_c_is_found() {
        let found = run(&LOST, &[], but_for(&[(18_700 * MS, 45 * S)], Outcome::Revoked));
        assert!(found.revocation_breaches.is_empty(), "100 ms are for measuring: {found:?}");
        let found = run(&LOST, &[], but_for(&[(18_720 * MS, 45 * S)], Outcome::Revoked));
        assert_eq!(found.revocation_breaches.len(), 2);
        assert!(
            found.revocation_breaches[1].starts_with("stale: account calm 0 released 8.710 s"),
            "{found:?}"
        );
    }

    #[test]
    fn a_release_after_revoked_was_said_is_found() {
        let found = run(&LOST, &[], but_for(&[(13 * S, 14 * S), (14_010 * MS, 45 * S)], Outcome::Revoked));
        assert_eq!(found.revocation_breaches.len(), 1);
        assert!(found.revocation_breaches[0].starts_with("reopened"), "{found:?}");
        // Not ready may become ready: the refusal was compared with a newer record.
        let found = run(&LOST, &[], but_for(&[(13 * S, 14 * S), (14_010 * MS, 45 * S)], Outcome::NotReady));
        assert!(found.revocation_breaches.is_empty(), "{found:?}");
    }

    #[test]
    fn a_stopped_reader_is_held_to_the_end_of_its_lease() {
        let stop = [change(What::Stopped, 11 * S), change(What::Continued, 20 * S)];
        let found = run(&LOST, &stop, but_for(&[(11 * S, 20 * S), (21 * S, 45 * S)], Outcome::Revoked));
        assert_eq!((found.stale.len(), &found.stale_disturbed[..]), (0, &[11 * S - 5 * MS][..]));
        assert!(found.revocation_breaches.is_empty() && found.usable_breaches.is_empty(), "{found:?}");
        let stop = [change(What::Stopped, 11 * S), change(What::Continued, 29 * S)];
        let found = run(&LOST, &stop, but_for(&[(11 * S, 29 * S), (29_010 * MS, 45 * S)], Outcome::NotReady));
        assert_eq!(found.usable_breaches.len(), 1, "one release on waking: {found:?}");
    }

    #[test]
    fn use_past_f_and_g_is_found_in_silence_and_over_a_silence_that_turns_into_a_refusal() {
        let found = run(&[], &SILENT, but_for(&[(28_600 * MS, 45 * S)], Outcome::Unavailable));
        assert!(found.usable_breaches.is_empty(), "{found:?}");
        assert_eq!((found.outages, found.graced, &found.used[..]), (1, 1, &[18_590 * MS][..]));
        let found = run(&[], &SILENT, but_for(&[(28_620 * MS, 45 * S)], Outcome::Unavailable));
        assert_eq!(found.usable_breaches.len(), 2, "{found:?}");

        // Neither of them alone is as long.
        let revoked = [change(What::Revoked, 20 * S), change(What::Restored, 40 * S)];
        let silent = [SILENT[0], change(What::Speaking, 25 * S)];
        let found = run(&revoked, &silent, but_for(&[(29 * S, 45 * S)], Outcome::Revoked));
        assert_eq!(found.usable_breaches.len(), 40, "{found:?}");
        assert_eq!(found.recovered, [5 * S + 1]);
    }

    #[test]
    fn an_account_that_does_not_come_back_counts_with_all_the_time_it_was_watched() {
        let found = run(&LOST, &[], but_for(&[(18 * S, 120 * S)], Outcome::Revoked));
        assert_eq!(found.recovered, [120 * S - 10 * MS + 1 - 40 * S]);
        // Lost again before it had to be back.
        let again = [LOST[0], LOST[1], change(What::Revoked, 44 * S)];
        let found = run(&again, &[], but_for(&[(18 * S, 120 * S)], Outcome::Revoked));
        assert!(found.recovered.is_empty(), "{found:?}");
        // It was stopped, and came back a second after it was continued.
        let stop = [change(What::Stopped, 39 * S), change(What::Continued, 60 * S)];
        let found = run(&LOST, &stop, but_for(&[(18 * S, 61 * S)], Outcome::Revoked));
        assert_eq!(found.recovered, [S + 1]);
    }

    #[test]
    fn who_was_served_throughout_has_nothing_to_recover_from() {
        let short = [SILENT[0], change(What::Speaking, 12 * S)];
        let found = run(&[], &short, but_for(&[], Outcome::Unavailable));
        assert_eq!((found.recovered.len(), found.graced, found.used.len()), (0, 0, 1));
    }
}
