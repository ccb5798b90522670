//! What a failed call says beside its status code and message.

use std::time::Duration;

use prost::Message;
use tonic::{Code, Status};

use crate::errors::v1::Error;

/// The failure in the service's own words; none when it is not the service's: no connection, a deadline that passed here.
///
/// The details of other kinds (`google.rpc.ErrorInfo`, `BadRequest`, `RetryInfo`) say the same; `tonic_types::StatusExt`
/// reads them.
#[must_use]
pub fn error(status: &Status) -> Option<Error> {
    let details = tonic_types::pb::Status::decode(status.details()).ok()?.details;
    let detail = details.iter().find(|detail| detail.type_url.ends_with("/tickets.errors.v1.Error"))?;
    Error::decode(detail.value.as_slice()).ok()
}

/// The stable reason, such as `not_found`; empty when the failure is not the service's own.
#[must_use]
pub fn reason(status: &Status) -> String {
    error(status).map(|error| error.code).unwrap_or_default()
}

/// How long to wait before another try, where the service says so.
#[must_use]
pub fn retry_after(status: &Status) -> Option<Duration> {
    let seconds = u64::try_from(error(status)?.retry_after?).ok()?;
    Some(Duration::from_secs(seconds))
}

/// Whether the same request may succeed later, not before [`retry_after`]; a write that failed so may have happened:
/// repeat it under its key. A limit that says how long to wait is one too, a message that is too large is none.
#[must_use]
pub fn is_transient(status: &Status) -> bool {
    match status.code() {
        // tonic says Cancelled where it is the caller's own timeout that has passed.
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => true,
        Code::ResourceExhausted => retry_after(status).is_some(),
        _ => false,
    }
}

/// The id of the call in the service's log.
#[must_use]
pub fn request_id(status: &Status) -> Option<&str> {
    status.metadata().get("x-request-id")?.to_str().ok()
}
