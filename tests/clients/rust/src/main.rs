//! The scenario, as README.md beside it tells it, by the crate `tickets-client` and tonic.

mod steps;

use std::{env, error, fs};

use serde_json::Value;
use tickets_client::Credentials;
use tickets_client::itsm::v1::ticket_service_client::TicketServiceClient;
use tickets_client::tonic::transport::Channel;

use steps::{Outcome, Scenario};

#[tokio::main]
async fn main() -> Outcome<()> {
    let credentials = read("TICKETS_CREDENTIALS")?;
    let scenario = read("TICKETS_SCENARIO")?;
    let channel = Channel::from_shared(format!("http://{}", text(&credentials["grpc_target"])))?.connect().await?;
    let key = Credentials::api_key(text(&credentials["itsm_api_key"]))?;
    let tickets = TicketServiceClient::with_interceptor(channel, key);
    Scenario::new(tickets, scenario["steps"].clone()).run().await
}

fn read(variable: &str) -> Result<Value, Box<dyn error::Error>> {
    Ok(serde_json::from_str(&fs::read_to_string(env::var(variable)?)?)?)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
