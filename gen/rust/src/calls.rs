//! What a call carries beside its message: who calls, and the key that makes a write safe to repeat.

use tonic::metadata::{AsciiMetadataValue, MetadataMap, errors::InvalidMetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

/// Who calls: the second argument of a client's `with_interceptor`.
#[derive(Clone, Debug)]
pub struct Credentials {
    name: &'static str,
    value: AsciiMetadataValue,
}

impl Credentials {
    /// An API key, for the clients of [`itsm`](crate::itsm).
    ///
    /// # Errors
    ///
    /// When the key has characters that no header can carry.
    pub fn api_key(key: &str) -> Result<Self, InvalidMetadataValue> {
        Self::secret("x-api-key", key)
    }

    /// A bearer token, for the clients of the other APIs.
    ///
    /// # Errors
    ///
    /// When the token has characters that no header can carry.
    pub fn token(token: &str) -> Result<Self, InvalidMetadataValue> {
        Self::secret("authorization", &format!("Bearer {token}"))
    }

    fn secret(name: &'static str, value: &str) -> Result<Self, InvalidMetadataValue> {
        let mut value: AsciiMetadataValue = value.parse()?;
        value.set_sensitive(true); // so that Debug does not print it
        Ok(Self { name, value })
    }
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert(self.name, self.value.clone());
        Ok(request)
    }
}

/// A request under an idempotency key: a new one for each request, and the same one for all its attempts.
///
/// # Errors
///
/// When the key has characters that no header can carry.
pub fn idempotent<T>(message: T, key: &str) -> Result<Request<T>, InvalidMetadataValue> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("idempotency-key", key.parse()?);
    Ok(request)
}

/// Whether the metadata of an answer says that it is the answer of an earlier attempt.
#[must_use]
pub fn replayed(metadata: &MetadataMap) -> bool {
    metadata.get("idempotent-replayed").is_some_and(|value| value == "true")
}
