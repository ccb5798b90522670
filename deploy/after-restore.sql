-- After a dump was restored into another cluster, before the service starts: psql --single-transaction -f after-restore.sql
--
-- Watches and webhooks read events in the order of their transactions, up to the oldest that is still open. The
-- transactions of a dump are those of the cluster that it is of, and to a new one they lie in the future. Now all of them
-- are this one; among its events those of a ticket stay in their order, which is that of their ids.

-- A webhook goes on at the first event that it has no message of yet. It may be sent some again, and none is left out.
UPDATE itsm_webhooks AS webhook
SET transaction_id = pg_current_xact_id(),
    event_id = coalesce(
        (
            SELECT min(event.id) - 1
            FROM itsm_events AS event
            WHERE event.account_id = webhook.account_id AND event.live = webhook.live
                AND (event.transaction_id, event.id) > (webhook.transaction_id, webhook.event_id)
        ),
        (
            SELECT max(event.id)
            FROM itsm_events AS event
            WHERE event.account_id = webhook.account_id AND event.live = webhook.live
        ),
        webhook.event_id
    );
UPDATE itsm_events SET transaction_id = pg_current_xact_id();
UPDATE itsm_tickets SET transaction_id = pg_current_xact_id();
UPDATE helpdesk_events SET transaction_id = pg_current_xact_id();
UPDATE helpdesk_tickets SET transaction_id = pg_current_xact_id();
UPDATE handoff_events SET transaction_id = pg_current_xact_id();
UPDATE handoff_tickets SET transaction_id = pg_current_xact_id();
-- Nobody's place is before what was deleted in the old cluster: its cursors are refused, and webhooks have moved.
UPDATE itsm_events_purged SET transaction_id = '0';
UPDATE helpdesk_events_purged SET transaction_id = '0';
UPDATE handoff_events_purged SET transaction_id = '0';
