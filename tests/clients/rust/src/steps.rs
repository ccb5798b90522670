//! The steps in their order.

use std::collections::BTreeSet;
use std::error::Error;

use serde_json::Value;
use tickets_client::itsm::v1::ticket_service_client::TicketServiceClient;
use tickets_client::itsm::v1::{
    CreateTicketRequest, GetTicketRequest, ListTicketsRequest, Priority, Status, Ticket, TicketEvent,
    UpdateTicketRequest, WatchTicketsRequest, WatchTicketsResponse,
};
use tickets_client::prost_types::FieldMask;
use tickets_client::tonic::service::interceptor::InterceptedService;
use tickets_client::tonic::transport::Channel;
use tickets_client::tonic::{self, Response, Streaming};
use tickets_client::{Credentials, failure, idempotent, replayed};
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::text;

pub type Outcome<T> = Result<T, Box<dyn Error>>;
type Tickets = TicketServiceClient<InterceptedService<Channel, Credentials>>;

pub struct Scenario {
    tickets: Tickets,
    steps: Value,
}

impl Scenario {
    pub fn new(tickets: Tickets, steps: Value) -> Self {
        Self { tickets, steps }
    }

    pub async fn run(mut self) -> Outcome<()> {
        let key = Uuid::new_v4().to_string();
        let first = self.create(&key).await?;
        self.repeat(&key, &first).await?;
        self.reuse_key(&key).await?;
        self.pages(&first).await?;
        self.clear(&first).await?;
        self.invalid().await?;
        self.not_found().await?;
        let (version, cursor) = self.watch(&first).await?;
        self.resume(&first, version, cursor).await
    }

    async fn create(&mut self, key: &str) -> Outcome<Ticket> {
        let step = self.steps["create"].clone();
        let created = self.tickets.create_ticket(idempotent(creation(&step["ticket"]), key)?).await?;
        see("replayed", &replayed(created.metadata()), &false)?;
        let ticket = created.into_inner().ticket.ok_or("no ticket")?;
        see_members(&ticket, &step["expect"])?;
        see("metadata", &serde_json::from_str(&ticket.metadata_json)?, &step["ticket"]["metadata"])?;
        done("create");
        Ok(ticket)
    }

    async fn repeat(&mut self, key: &str, first: &Ticket) -> Outcome<()> {
        let request = creation(&self.steps["create"]["ticket"]);
        let repeated = self.tickets.create_ticket(idempotent(request, key)?).await?;
        see("replayed", &replayed(repeated.metadata()), &true)?;
        see("ticket", &repeated.into_inner().ticket.as_ref(), &Some(first))?;
        done("repeat");
        Ok(())
    }

    async fn reuse_key(&mut self, key: &str) -> Outcome<()> {
        let step = &self.steps["reuse_key"];
        let answer = self.tickets.create_ticket(idempotent(creation(&step["ticket"]), key)?).await;
        see_failure(answer, &step["expect"])?;
        done("reuse_key");
        Ok(())
    }

    async fn pages(&mut self, first: &Ticket) -> Outcome<()> {
        let step = self.steps["pages"].clone();
        let mut expected = BTreeSet::from([first.id.clone()]);
        for number in 0..step["create"].as_i64().unwrap_or_default() {
            let request = CreateTicketRequest {
                subject: format!("Page {number}"),
                description: "One of some.".into(),
                ..Default::default()
            };
            let request = idempotent(request, &Uuid::new_v4().to_string())?;
            expected.insert(self.tickets.create_ticket(request).await?.into_inner().ticket.ok_or("no ticket")?.id);
        }
        let limit = i32::try_from(step["limit"].as_i64().ok_or("no limit")?)?;
        let (mut seen, mut pages) = (BTreeSet::new(), 0);
        while !expected.is_subset(&seen) {
            let request = ListTicketsRequest {
                status: Some(status(&step["status"])?.into()),
                limit: Some(limit),
                offset: Some(i64::from(limit) * pages),
                ..Default::default()
            };
            let page = self.tickets.list_tickets(request).await?.into_inner().tickets;
            check(!page.is_empty(), "the pages end before all tickets were seen")?;
            for ticket in page {
                check(seen.insert(ticket.id), "a ticket is on two pages")?;
            }
            pages += 1;
        }
        check(pages >= step["expect"]["pages_at_least"].as_i64().ok_or("no number")?, "too few pages")?;
        done("pages");
        Ok(())
    }

    async fn clear(&mut self, first: &Ticket) -> Outcome<()> {
        let step = self.steps["clear"].clone();
        let request = UpdateTicketRequest {
            ticket_id: first.id.clone(),
            update_mask: Some(FieldMask { paths: words(&step["update_mask"]) }),
            ..Default::default()
        };
        let changed = self.tickets.update_ticket(request).await?.into_inner().ticket.ok_or("no ticket")?;
        see_members(&changed, &step["expect"])?;
        see("description", &changed.description, &first.description)?;
        see("status", &changed.status, &first.status)?;
        see("metadata", &changed.metadata_json, &first.metadata_json)?;
        done("clear");
        Ok(())
    }

    async fn invalid(&mut self) -> Outcome<()> {
        let step = &self.steps["invalid"];
        let status = see_failure(self.tickets.create_ticket(creation(&step["ticket"])).await, &step["expect"])?;
        let details = status.get_details_bad_request().ok_or("no BadRequest in the details")?;
        let fields: Vec<_> = details.field_violations.into_iter().map(|violation| violation.field).collect();
        see("fields", &fields, &words(&step["expect"]["fields"]))?;
        let issues = failure::error(&status).ok_or("no Error in the details")?.issues;
        see("issues", &issues.into_iter().map(|issue| issue.path).collect(), &fields)?;
        done("invalid");
        Ok(())
    }

    async fn not_found(&mut self) -> Outcome<()> {
        let step = &self.steps["not_found"];
        let request = GetTicketRequest { ticket_id: text(&step["ticket_id"]).into() };
        see_failure(self.tickets.get_ticket(request).await, &step["expect"])?;
        done("not_found");
        Ok(())
    }

    async fn watch(&mut self, first: &Ticket) -> Outcome<(i32, String)> {
        let step = self.steps["watch"].clone();
        let mut messages = self.open_watch(None).await?;
        let begin = messages.message().await?.ok_or("the watch ended")?;
        check(begin.event.is_none() && !begin.cursor.is_empty(), "the first message has no position alone")?;
        self.set_status(first, &step["status"]).await?;
        let (event, cursor) = next_event(&mut messages, first).await?;
        see("type", &event.r#type.as_str(), &text(&step["expect"]["type"]))?;
        drop(messages); // cancels it
        done("watch");
        Ok((event.version, cursor))
    }

    async fn resume(&mut self, first: &Ticket, version: i32, cursor: String) -> Outcome<()> {
        let step = self.steps["resume"].clone();
        self.set_status(first, &step["status"]).await?;
        let mut messages = self.open_watch(Some(cursor)).await?;
        let (event, _) = next_event(&mut messages, first).await?;
        check(words(&step["expect"]["types"]).contains(&event.r#type), &format!("an event {}", event.r#type))?;
        see("version", &event.version, &(version + 1))?;
        done("resume");
        Ok(())
    }

    async fn open_watch(&mut self, cursor: Option<String>) -> Outcome<Streaming<WatchTicketsResponse>> {
        Ok(self.tickets.watch_tickets(WatchTicketsRequest { cursor }).await?.into_inner())
    }

    async fn set_status(&mut self, ticket: &Ticket, word: &Value) -> Outcome<()> {
        let request = UpdateTicketRequest {
            ticket_id: ticket.id.clone(),
            status: Some(status(word)?.into()),
            ..Default::default()
        };
        self.tickets.update_ticket(request).await?;
        Ok(())
    }
}

fn creation(ticket: &Value) -> CreateTicketRequest {
    let priority = ticket["priority"].as_str().and_then(|word| Priority::from_str_name(&constant("PRIORITY", word)));
    CreateTicketRequest {
        subject: text(&ticket["subject"]).into(),
        description: text(&ticket["description"]).into(),
        status: None,
        priority: priority.map(Into::into),
        requester_email: ticket["requester_email"].as_str().map(Into::into),
        metadata_json: ticket.get("metadata").map(Value::to_string),
    }
}

fn status(word: &Value) -> Outcome<Status> {
    Ok(Status::from_str_name(&constant("STATUS", text(word))).ok_or("no such status")?)
}

fn constant(prefix: &str, word: &str) -> String {
    format!("{prefix}_{}", word.to_uppercase())
}

fn words(values: &Value) -> Vec<String> {
    values.as_array().into_iter().flatten().map(|value| text(value).to_string()).collect()
}

async fn next_event(messages: &mut Streaming<WatchTicketsResponse>, ticket: &Ticket) -> Outcome<(TicketEvent, String)> {
    while let Some(message) = messages.message().await? {
        if let Some(event) = message.event.filter(|event| event.ticket_id == ticket.id) {
            return Ok((event, message.cursor));
        }
    }
    Err("the watch ended".into())
}

/// The members that are named have these values; null is absent.
fn see_members(ticket: &Ticket, expected: &Value) -> Outcome<()> {
    for (name, value) in expected.as_object().into_iter().flatten() {
        let seen = match name.as_str() {
            "subject" => Some(ticket.subject.clone()),
            "status" => Some(ticket.status().as_str_name().into()),
            "priority" => ticket.priority.map(|_| ticket.priority().as_str_name().into()),
            "requester_email" => ticket.requester_email.clone(),
            "external_provider" => ticket.external_provider.clone(),
            other => return Err(format!("a member that the program does not know: {other}").into()),
        };
        let expected = value.as_str().map(|word| match name.as_str() {
            "status" | "priority" => constant(&name.to_uppercase(), word),
            _ => word.into(),
        });
        see(name, &seen, &expected)?;
    }
    Ok(())
}

fn see_failure<T>(answer: Result<Response<T>, tonic::Status>, expected: &Value) -> Outcome<tonic::Status> {
    let status = answer.err().ok_or("it did not fail")?;
    let code = format!("{:?}", status.code()); // `NotFound`, where the scenario has NOT_FOUND
    let same = code.eq_ignore_ascii_case(&text(&expected["code"]).replace('_', ""));
    check(same, &format!("the status code is {code}"))?;
    let info = status.get_details_error_info().ok_or("no ErrorInfo in the details")?;
    see("reason", &info.reason.as_str(), &text(&expected["reason"]))?;
    see("reason in Error", &failure::reason(&status).as_str(), &text(&expected["reason"]))?;
    if let Some(message) = expected["message"].as_str() {
        see("message", &status.message(), &message)?;
    }
    check(status.message().starts_with(text(&expected["message_begins"])), status.message())?;
    check(failure::request_id(&status).is_some(), "no request id")?;
    Ok(status)
}

fn see<T: PartialEq + std::fmt::Debug>(what: &str, seen: &T, expected: &T) -> Outcome<()> {
    check(seen == expected, &format!("{what} is {seen:?}, not {expected:?}"))
}

fn check(is_so: bool, otherwise: &str) -> Outcome<()> {
    if is_so { Ok(()) } else { Err(otherwise.into()) }
}

fn done(step: &str) {
    println!("ok {step}");
}
