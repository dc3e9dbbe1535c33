//! What a scripted provider is told to answer: a queue for each kind of call, then a standing answer.
//! Imports: `provider`, `error`, `testing::virtual_time`.

use std::collections::VecDeque;
use std::time::Duration;

use super::virtual_time::Latency;
use crate::error::Refusal;
use crate::provider::ProviderError;

/// One answer of a script. What does not apply to a kind of call is [`Answer::Ok`] there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// The truth, at once.
    Ok,
    /// The KMS answers and refuses.
    Refused(Refusal),
    /// No answer, as the provider reports it.
    Transient,
    /// An answer that the provider itself found wrong.
    Integrity,
    /// Our own set-up is wrong.
    Misconfigured,
    /// Success with random content: 56 random bytes unwrapped, random bytes wrapped, another key described.
    Garbage,
    /// Success with a well-formed AEK of the right account and generation that is not the one: unwrapped, or
    /// wrapped in the place of the one given.
    OtherAek,
    /// The provider's code panics.
    Panic,
    /// The truth, this much later. On virtual time, the truth as it was when the call began.
    Delay(Duration),
    /// Another answer, this much later.
    Late(Duration, Box<Answer>),
    /// No answer until [`ScriptedProvider::release`](super::ScriptedProvider::release), then the truth. On virtual time: never.
    Hang,
}

/// The kinds of call that a script tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Call {
    /// [`KeyProvider::wrap`](crate::provider::KeyProvider::wrap).
    Wrap,
    /// [`KeyProvider::unwrap`](crate::provider::KeyProvider::unwrap).
    Unwrap,
    /// [`KeyProvider::describe`](crate::provider::KeyProvider::describe).
    Describe,
}

/// The script of all calls.
#[derive(Default)]
pub(super) struct Script {
    wrap: Line,
    unwrap: Line,
    describe: Line,
}

#[derive(Default)]
struct Line {
    queue: VecDeque<Answer>,
    standing: Option<Answer>,
}

/// What is wrong with an answer that claims success.
pub(super) enum Fault {
    None,
    Garbage,
    OtherAek,
}

impl Script {
    pub(super) fn queue(&mut self, call: Call, answers: impl IntoIterator<Item = Answer>) {
        self.line(call).queue.extend(answers);
    }

    pub(super) fn stand(&mut self, call: Call, answer: Answer) {
        self.line(call).standing = Some(answer);
    }

    /// Drops the queues.
    pub(super) fn stand_for_all(&mut self, answer: &Answer) {
        for call in [Call::Wrap, Call::Unwrap, Call::Describe] {
            *self.line(call) = Line { queue: VecDeque::new(), standing: Some(answer.clone()) };
        }
    }

    /// The answer to the call that begins now.
    pub(super) fn take(&mut self, call: Call) -> Answer {
        let line = self.line(call);
        line.queue.pop_front().or_else(|| line.standing.clone()).unwrap_or(Answer::Ok)
    }

    const fn line(&mut self, call: Call) -> &mut Line {
        match call {
            Call::Wrap => &mut self.wrap,
            Call::Unwrap => &mut self.unwrap,
            Call::Describe => &mut self.describe,
        }
    }
}

impl Answer {
    /// How late it comes, and what it is then: neither [`Answer::Delay`] nor [`Answer::Late`] nor [`Answer::Hang`].
    pub(super) fn split(&self) -> (Option<Latency>, &Self) {
        match self {
            Self::Delay(by) => (Some(Latency::For(*by)), TRUTH),
            Self::Hang => (Some(Latency::Forever), TRUTH),
            Self::Late(by, then) => match then.split() {
                (None, then) => (Some(Latency::For(*by)), then),
                (Some(Latency::For(more)), then) => (Some(Latency::For(by.saturating_add(more))), then),
                (Some(Latency::Forever), then) => (Some(Latency::Forever), then),
            },
            at_once => (None, at_once),
        }
    }

    /// The scripted failure, or what to falsify in a success.
    pub(super) fn play(&self) -> Result<Fault, ProviderError> {
        match self {
            Self::Ok | Self::Delay(_) | Self::Late(..) | Self::Hang => Ok(Fault::None),
            Self::Garbage => Ok(Fault::Garbage),
            Self::OtherAek => Ok(Fault::OtherAek),
            Self::Refused(refusal) => Err(ProviderError::refused(*refusal, "scripted")),
            Self::Transient => Err(ProviderError::transient("scripted")),
            Self::Integrity => Err(ProviderError::integrity("scripted")),
            Self::Misconfigured => Err(ProviderError::misconfigured("scripted")),
            Self::Panic => panic!("scripted panic of a provider"),
        }
    }
}

/// What a call that hung answers once it is let go.
pub(super) const TRUTH: &Answer = &Answer::Ok;
