//! The last step of Microsoft's pipeline: an answer is read up to a limit, into memory that is wiped. Imports: `provider`.

use std::sync::Arc;

use async_trait::async_trait;
use azure_core::Bytes;
use azure_core::error::ErrorKind;
use azure_core::http::headers::{AUTHORIZATION, WWW_AUTHENTICATE};
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{AsyncRawResponse, Context, Request, StatusCode, Transport};
use zeroize::Zeroizing;

use crate::provider::ProviderError;

/// The user's transport, with an end to what it may bring.
#[derive(Debug)]
pub(super) struct Bounded {
    inner: Transport,
}

impl Bounded {
    pub(super) const fn new(inner: Transport) -> Self {
        Self { inner }
    }
}

#[async_trait]
impl Policy for Bounded {
    async fn send(&self, context: &Context, request: &mut Request, _: &[Arc<dyn Policy>]) -> PolicyResult {
        let (status, mut headers, body) = self.inner.send(context, request).await?.deconstruct();
        // A token was sent and rejected, and the challenge asks for something else than a resource's token, for example for
        // claims: the client would stumble over it, and hide what the service said.
        if status == StatusCode::Unauthorized
            && request.headers().get_optional_str(&AUTHORIZATION).is_some()
            && headers
                .get_optional_str(&WWW_AUTHENTICATE)
                .is_some_and(|challenge| !names_a_resource(challenge))
        {
            headers.remove(WWW_AUTHENTICATE);
        }
        let mut answer = Zeroizing::new(vec![0; MAX_ANSWER]);
        let length = match body.collect_into(&mut answer).await {
            Ok(length) => length,
            // An error of the connection has a cause; that the buffer is too small has none.
            Err(error) if *error.kind() == ErrorKind::Io && error.get_ref().is_none() => {
                if status.is_success() {
                    return Err(azure_core::Error::new(ErrorKind::Other, ProviderError::integrity(TOO_LONG)));
                }
                // A failure is one by its status, and words of such a length are not the service's.
                0
            }
            Err(error) => return Err(error),
        };
        answer.truncate(length);
        Ok(AsyncRawResponse::from_bytes(status, headers, wiped(answer)))
    }
}

/// As the client looks for it.
fn names_a_resource(challenge: &str) -> bool {
    challenge.contains("resource=\"") || challenge.contains("scope=\"")
}

/// Bytes that are wiped when their last holder lets go of them.
pub(super) fn wiped(bytes: Zeroizing<Vec<u8>>) -> Bytes {
    Bytes::from_owner(Wiped(bytes))
}

struct Wiped(Zeroizing<Vec<u8>>);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The longest answer to anything that is asked here, a key with all its tags, has less than 10 KiB.
const MAX_ANSWER: usize = 64 * 1024;
const TOO_LONG: &str = "the answer is longer than 64 KiB";
