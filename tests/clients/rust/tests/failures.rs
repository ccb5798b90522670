//! What the crate makes of statuses that the scenario does not meet.

use std::time::Duration;

use prost::Message;
use tickets_client::errors::v1::Error;
use tickets_client::failure;
use tickets_client::prost_types::Any;
use tickets_client::tonic::{Code, Status};

fn limited() -> Status {
    let error = Error { code: "rate_limited".into(), retry_after: Some(7), ..Default::default() };
    let details = tonic_types::pb::Status {
        details: vec![
            Any { type_url: "type.googleapis.com/google.rpc.ErrorInfo".into(), value: Vec::new() },
            Any { type_url: "type.googleapis.com/tickets.errors.v1.Error".into(), value: error.encode_to_vec() },
        ],
        ..Default::default()
    };
    Status::with_details(Code::ResourceExhausted, "Slow down", details.encode_to_vec().into())
}

#[test]
fn a_failure_of_the_service_has_a_reason_and_says_how_long_to_wait() {
    let status = limited();
    assert_eq!(failure::reason(&status), "rate_limited");
    assert_eq!(failure::retry_after(&status), Some(Duration::from_secs(7)));
    assert!(failure::is_transient(&status));
    assert!(!failure::is_transient(&Status::resource_exhausted("too large")));
}

#[test]
fn a_failure_on_the_way_has_none() {
    for status in [Status::unavailable("no connection"), Status::with_details(Code::Unavailable, "", "\u{1}?".into())] {
        assert_eq!(failure::error(&status), None);
        assert_eq!(failure::reason(&status), "");
        assert_eq!((failure::retry_after(&status), failure::request_id(&status)), (None, None));
        assert!(failure::is_transient(&status));
    }
}
