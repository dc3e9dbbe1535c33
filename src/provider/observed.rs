//! What is told of each call to a KMS (contract H1): a span around it, a count by outcome, how long it took.
//!
//! The answer passes through untouched, whatever recorder and subscriber do. Imports: `provider`, `clock`, `telemetry`, `id`.

use std::future::Future;
#[cfg(feature = "tracing")]
use std::{
    pin::Pin,
    task::{Context, Poll},
};

use super::{Authority, ErrorClass, ProviderError};
use crate::clock::Clock;
#[cfg(feature = "metrics")]
use crate::clock::Moment;
use crate::id::AccountId;
use crate::telemetry::shielded;

/// Which of the three calls, and for whom.
#[derive(Clone, Copy)]
pub(super) struct Observed<'a> {
    pub(super) operation: &'static str,
    pub(super) authority: &'a Authority,
    #[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "no metric names an account here"))]
    pub(super) account: Option<AccountId>,
    #[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "a subscriber reads its own clock"))]
    pub(super) clock: &'a Clock,
}

impl Observed<'_> {
    pub(super) async fn call<T>(
        self,
        call: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, ProviderError> {
        #[cfg(feature = "metrics")]
        let begun = self.clock.now();
        #[cfg(feature = "tracing")]
        let span = shielded(|| self.span());
        let call = std::pin::pin!(call);
        #[cfg(feature = "tracing")]
        let call = InSpan { span: span.as_ref(), call };
        let answer = call.await;
        shielded(|| {
            #[cfg(feature = "metrics")]
            self.count(begun, outcome(&answer));
            #[cfg(feature = "tracing")]
            if let Some(span) = &span {
                span.record("outcome", outcome(&answer));
                if let Some(id) = answer.as_ref().err().and_then(ProviderError::request_id) {
                    span.record("request_id", id);
                }
            }
        });
        #[cfg(feature = "tracing")]
        shielded(|| drop(span));
        answer
    }

    #[cfg(feature = "tracing")]
    fn span(self) -> tracing::Span {
        let span = tracing::debug_span!(
            target: crate::telemetry::TARGET,
            crate::telemetry::KMS_CALL,
            operation = self.operation,
            provider = self.authority.provider(),
            authority = self.authority.endpoint(),
            account = tracing::field::Empty,
            outcome = tracing::field::Empty,
            request_id = tracing::field::Empty,
        );
        if let Some(account) = self.account {
            span.record("account", tracing::field::display(account));
        }
        span
    }

    #[cfg(feature = "metrics")]
    fn count(self, begun: Moment, outcome: &'static str) {
        use crate::telemetry::{KMS_CALL_SECONDS, KMS_CALLS, authority_label};
        let provider = self.authority.provider().to_owned();
        let authority = authority_label(self.authority.provider(), self.authority.endpoint());
        let seconds = self.clock.now().age_since(begun).as_secs_f64();
        metrics::histogram!(
            KMS_CALL_SECONDS,
            "provider" => provider.clone(),
            "authority" => authority.clone(),
            "operation" => self.operation,
        )
        .record(seconds);
        metrics::counter!(
            KMS_CALLS,
            "provider" => provider,
            "authority" => authority,
            "operation" => self.operation,
            "outcome" => outcome,
        )
        .increment(1);
    }
}

const fn outcome<T>(answer: &Result<T, ProviderError>) -> &'static str {
    match answer {
        Ok(_) => "answered",
        Err(error) => match error.class() {
            ErrorClass::Refused(_) => "refused",
            ErrorClass::Transient => "transient",
            ErrorClass::Integrity => "integrity",
            ErrorClass::Misconfigured => "misconfigured",
        },
    }
}

/// Enters the span at each poll. Not `tracing`'s own: a subscriber that panics must not turn a refusal into silence.
#[cfg(feature = "tracing")]
struct InSpan<'a, F> {
    span: Option<&'a tracing::Span>,
    call: Pin<&'a mut F>,
}

#[cfg(feature = "tracing")]
impl<F: Future> Future for InSpan<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let entered = self.span.and_then(|span| shielded(|| span.enter()));
        let polled = self.call.as_mut().poll(context);
        shielded(|| drop(entered));
        polled
    }
}
