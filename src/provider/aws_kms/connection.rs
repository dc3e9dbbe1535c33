//! The user's client, with this library's own ideas of time, retries and size; and its credentials renewed once.
//! Imports: `provider`, `clock`, `error`.

use std::error::Error as StdError;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_kms::Client;
use aws_sdk_kms::config::http::HttpResponse;
use aws_sdk_kms::config::interceptors::BeforeDeserializationInterceptorContextMut;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::config::{Builder, ConfigBag, IdentityCache, Intercept, RuntimeComponents};
use aws_sdk_kms::error::{BoxError, ProvideErrorMetadata, SdkError};
use aws_smithy_types::body::SdkBody;
use http_body_util::Limited;

use super::classify::failure;
use crate::clock::{Clock, Moment};
use crate::error::Refusal;
use crate::provider::{ErrorClass, ProviderError};

/// A client, and the means to renew its credentials.
pub(super) struct Connection {
    current: Mutex<Generation>,
}

/// A client and the credentials that it caches.
#[derive(Clone)]
struct Generation {
    client: Client,
    number: u64,
    /// When it was made because the service had rejected the credentials of the one before.
    renewed: Option<Moment>,
}

/// One call of the provider: how long its requests may take together.
#[derive(Clone, Copy)]
pub(super) struct Budget {
    began: Moment,
    whole: Duration,
}

impl Budget {
    pub(super) fn of(whole: Duration) -> Self {
        Self { began: Clock::System.now(), whole }
    }

    /// What to override for one request: the time that is left.
    fn config(&self) -> Builder {
        // Zero would mean no time-out at all to some versions of the SDK.
        let left = self.whole.saturating_sub(Clock::System.now().age_since(self.began)).max(LEAST);
        aws_sdk_kms::config::Config::builder()
            .timeout_config(TimeoutConfig::builder().operation_timeout(left).connect_timeout(left).build())
    }
}

impl Connection {
    pub(super) fn new(client: &Client) -> Self {
        // The keeper retries, spaced and bounded; a retry in here would outlast its deadline.
        let config = client
            .config()
            .to_builder()
            .retry_config(RetryConfig::disabled())
            .interceptor(BoundAnswers)
            .build();
        Self {
            current: Mutex::new(Generation { client: Client::from_conf(config), number: 0, renewed: None }),
        }
    }

    /// Makes a request, and makes it once more with renewed credentials if the service rejected those that it was
    /// signed with. What the service still rejects then is a refusal.
    pub(super) async fn request<T, E, F>(
        &self,
        call: &str,
        budget: Budget,
        send: impl Fn(Client, Builder) -> F,
    ) -> Result<T, ProviderError>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let used = self.generation();
        let error = match send(used.client.clone(), budget.config()).await {
            Ok(answer) => return Ok(answer),
            Err(error) => failure(call, &error),
        };
        if error.class() != ErrorClass::Refused(Refusal::CredentialRejected) {
            return Err(error);
        }
        let Some(client) = self.renewed_after(&used) else { return Err(error) };
        send(client, budget.config()).await.map_err(|error| failure(call, &error))
    }

    fn generation(&self) -> Generation {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A client that asks its provider for credentials anew; `None` where that was just done. Calls that were rejected
    /// together share one.
    fn renewed_after(&self, used: &Generation) -> Option<Client> {
        let now = Clock::System.now();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.number != used.number {
            return Some(current.client.clone());
        }
        if current.renewed.is_some_and(|at| now.age_since(at) < RENEW_AT_MOST_EVERY) {
            return None;
        }
        let config =
            current.client.config().to_builder().identity_cache(IdentityCache::lazy().build()).build();
        *current =
            Generation { client: Client::from_conf(config), number: current.number + 1, renewed: Some(now) };
        Some(current.client.clone())
    }
}

/// Answers of AWS KMS are short. Whoever stands in its place could send for ever.
#[derive(Debug)]
struct BoundAnswers;

impl Intercept for BoundAnswers {
    fn name(&self) -> &'static str {
        "strongroom bounds answers"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.response_mut().body_mut();
        let answer = std::mem::replace(body, SdkBody::taken());
        *body = SdkBody::from_body_1_x(Limited::new(answer, MAX_ANSWER));
        Ok(())
    }
}

/// A whole KMS answer is at most a wrapped AEK of 4 KiB in base64, or a key's description: 64 KiB are plenty.
const MAX_ANSWER: usize = 64 * 1024;
/// A thousand accounts whose credential is rejected do not ask the login service a thousand times.
const RENEW_AT_MOST_EVERY: Duration = Duration::from_secs(5);
const LEAST: Duration = Duration::from_millis(1);
