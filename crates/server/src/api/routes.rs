//! Every operation of the API with what it needs: the one table of who may do what.

use super::approvals::{self, Word};
use super::ask_inventory;
use super::audit_log::{self, AuditPage, AuditQuery};
use super::campaigns::{self, CampaignAnswer, CancelReason, Retried, Retry, UpdateAnswer};
use super::dry_run::{self, DryRun, DryRunAnswer};
use super::events::{self, EventPage, EventsQuery};
use super::evidence::{self, KeyAnswer, NewRevision, RevisionAnswer};
use super::groups::{
    self, ChangedGroup, Explanation, GroupAnswer, GroupDetails, GroupVehicles, NewGroup, Query,
};
use super::images::{self, Announced, StoredImageAnswer};
use super::import::{self, ImportQuery, Imported};
use super::messages::{self, RefusedAnswer, SecurityEventAnswer};
use super::new_campaign::{self, NewCampaign};
use super::operation::Operation;
use super::page::{Page, PageQuery};
use super::releases::{self, NewRelease, ReleaseAnswer, ReleaseDetails};
use super::set_aside::{self, SetAsideAnswer, SetAsideQuery};
use super::timeline::{self, TimelinePage, TimelineQuery};
use super::tokens::{self, MadeToken, NewToken, TokenAnswer};
use super::uploads::{self, At, NewUpload, UploadAnswer};
use super::users::{self, Invitation, MadeLink, NewScope, UserAnswer};
use super::vehicle_bindings::{self, BindingAnswer};
use super::vehicle_changes::{self, NewVehicle, Rebinding, VehicleChange};
use super::vehicles::{self, ConfigurationAnswer, VehicleDetails, VehicleQuery, VehicleSummary, Why};
use super::webhooks::{self, DeliveryAnswer, MadeWebhook, NewWebhook, WebhookAnswer, WebhookChange};
use crate::access::Permission::{Administer, Operate, Release, View};

pub(super) fn operations() -> Vec<Operation> {
    let groups = [
        of_vehicles(),
        of_groups(),
        of_releases(),
        of_campaigns(),
        of_evidence(),
        of_webhooks(),
        of_the_server(),
    ];
    groups.into_iter().flatten().collect()
}

fn of_vehicles() -> Vec<Operation> {
    vec![
        Operation::get("/vehicles", vehicles::list)
            .needs(View, "List the vehicles, by id.")
            .takes_query::<VehicleQuery>()
            .answers::<Page<VehicleSummary>>(200, "A page of the list."),
        Operation::post("/vehicles", vehicle_changes::enrol)
            .needs(Operate, "Enrol a vehicle, or let one that is enrolled come with another certificate.")
            .takes::<NewVehicle>()
            .answers::<VehicleSummary>(200, "It was enrolled; its certificate may be another from now on.")
            .answers::<VehicleSummary>(201, "It is enrolled now.")
            .can_conflict(),
        Operation::post("/vehicles/import", import::import)
            .needs(Operate, "Enrol many vehicles, or change what is said of them: all of the lines, or none.")
            .takes_query::<ImportQuery>()
            .takes_lines()
            .answers::<Imported>(200, "What was done, or would have been."),
        Operation::get("/vehicles/{vehicle_id}", vehicles::show)
            .needs(View, "Show a vehicle with its inventory, its updates and what was refused.")
            .of(vehicles::VEHICLE)
            .answers::<VehicleDetails>(200, "The vehicle."),
        Operation::patch("/vehicles/{vehicle_id}", vehicle_changes::change)
            .needs(Operate, "Change what is said of a vehicle: VIN, region, time zone, vehicle type, tags.")
            .of(vehicles::VEHICLE)
            .takes::<VehicleChange>()
            .answers::<VehicleSummary>(200, "The vehicle as it is now.")
            .can_conflict(),
        Operation::get("/vehicles/{vehicle_id}/configurations", vehicles::configurations)
            .needs(View, "List what a vehicle ran, by its inventories, newest first.")
            .lists::<ConfigurationAnswer>(),
        Operation::get("/vehicles/{vehicle_id}/bindings", vehicle_bindings::list)
            .needs(View, "List the gateways and certificates that a vehicle had, newest first.")
            .lists::<BindingAnswer>(),
        Operation::post("/vehicles/{vehicle_id}/rebind", vehicle_changes::rebind)
            .needs(Operate, "Bind a vehicle to another gateway or certificate, as after a repair.")
            .of(vehicles::VEHICLE)
            .takes::<Rebinding>()
            .answers::<VehicleSummary>(200, "What the earlier gateway sends is refused from now on.")
            .can_conflict(),
        Operation::get("/vehicles/{vehicle_id}/why", vehicles::why)
            .needs(View, "Say why a vehicle is where it is and what it waits for.")
            .answers::<Why>(200, "The reason, as a sentence and as data."),
        Operation::get("/vehicles/{vehicle_id}/messages", timeline::list)
            .needs(View, "Tell everything that passed between the server and a vehicle.")
            .takes_query::<TimelineQuery>()
            .answers::<TimelinePage>(200, "A page of the time line."),
        Operation::post("/vehicles/{vehicle_id}/ask-inventory", ask_inventory::ask)
            .needs(Operate, "Ask a connected vehicle for its inventory (VCI).")
            .of(vehicles::VEHICLE)
            .answers::<VehicleSummary>(200, "It is asked; what it answers is shown with it.")
            .can_conflict(),
        Operation::post("/vehicles/{vehicle_id}/release", vehicles::release)
            .needs(Operate, "End a vehicle's quarantine.")
            .of(vehicles::VEHICLE)
            .answers::<VehicleSummary>(200, "It gets update commands again.")
            .can_conflict(),
        Operation::delete("/vehicles/{vehicle_id}/set-aside/{release}", set_aside::take_back)
            .needs(Operate, "Take a vehicle back that is set aside for a release, and forget its failures.")
            .answers::<SetAsideAnswer>(200, "Why it was set aside; it can get the release again."),
        Operation::get("/set-aside", set_aside::list)
            .needs(View, "List the vehicles that are set aside for a release since they failed it too often.")
            .takes_query::<SetAsideQuery>()
            .answers::<Page<SetAsideAnswer>>(200, "A page of the list, by vehicle and release."),
        Operation::get("/refused-messages", messages::refused)
            .needs(View, "List what vehicles sent and was refused, newest first.")
            .lists::<RefusedAnswer>(),
        Operation::get("/security-events", messages::security_events)
            .needs(View, "List what tells whether senders can be trusted, newest first.")
            .lists::<SecurityEventAnswer>(),
    ]
}

fn of_groups() -> Vec<Operation> {
    vec![
        Operation::post("/selections/explain", groups::explain)
            .needs(View, "Say what a query means, and how many vehicles it selects.")
            .takes::<Query>()
            .answers::<Explanation>(200, "The query in plain English."),
        Operation::get("/groups", groups::list)
            .needs(View, "List the fleet groups, by name.")
            .lists::<GroupAnswer>(),
        Operation::post("/groups", groups::create)
            .needs(Operate, "Save a query as a fleet group.")
            .takes::<NewGroup>()
            .answers::<GroupDetails>(201, "It is saved.")
            .can_conflict(),
        Operation::get("/groups/{name}", groups::show)
            .needs(View, "Show a fleet group and what it means.")
            .of(groups::GROUP)
            .answers::<GroupDetails>(200, "The group."),
        Operation::put("/groups/{name}", groups::change)
            .needs(Operate, "Change a fleet group.")
            .of(groups::GROUP)
            .takes::<ChangedGroup>()
            .answers::<GroupDetails>(200, "The group as it is now."),
        Operation::delete("/groups/{name}", groups::delete)
            .needs(Operate, "Delete a fleet group; its vehicles stay.")
            .of(groups::GROUP)
            .answers::<GroupAnswer>(200, "What it was."),
        Operation::get("/groups/{name}/vehicles", groups::vehicles)
            .needs(View, "List the vehicles of a fleet group, by id.")
            .takes_query::<PageQuery>()
            .answers::<GroupVehicles>(200, "A page of the list, and how many there are."),
    ]
}

fn of_releases() -> Vec<Operation> {
    vec![
        Operation::put("/images/{sha256}", images::put)
            .needs(Release, "Upload an image under its digest; it is signed, or its signature is checked.")
            .takes_query::<Announced>()
            .takes_octets(images::SIGNATURE)
            .answers::<StoredImageAnswer>(200, "It was there already.")
            .answers::<StoredImageAnswer>(201, "It is stored.")
            .can_conflict(),
        Operation::get("/uploads", uploads::list)
            .needs(View, "List the images that come in parts, by digest.")
            .lists::<UploadAnswer>(),
        Operation::post("/uploads", uploads::begin)
            .needs(
                Release,
                "Begin an upload in parts, or find out how far it is; it ends a day after the last part.",
            )
            .takes::<NewUpload>()
            .answers::<UploadAnswer>(200, "It was begun before, or the image is stored.")
            .answers::<UploadAnswer>(201, "It is begun.")
            .can_conflict(),
        Operation::get("/uploads/{sha256}", uploads::show)
            .needs(View, "Say how far an upload is.")
            .answers::<UploadAnswer>(200, "So far it is."),
        Operation::patch("/uploads/{sha256}", uploads::append)
            .needs(
                Release,
                "Send the next part of an image; after the last one it is checked, signed and stored.",
            )
            .takes_query::<At>()
            .takes_part()
            .answers::<UploadAnswer>(200, "So far it is; is_stored says whether it is whole and stored.")
            .can_conflict(),
        Operation::delete("/uploads/{sha256}", uploads::end)
            .needs(Release, "Give up an upload, and remove what has come of it.")
            .answers::<UploadAnswer>(200, "It is gone; this is what it was.")
            .can_conflict(),
        Operation::get("/releases", releases::list)
            .needs(View, "List the releases, by name.")
            .lists::<ReleaseAnswer>(),
        Operation::post("/releases", releases::create)
            .needs(Release, "Make a release of images that were uploaded; it never changes.")
            .takes::<NewRelease>()
            .answers::<ReleaseAnswer>(200, "The same release was there already.")
            .answers::<ReleaseAnswer>(201, "It is made.")
            .can_conflict(),
        Operation::get("/releases/{name}", releases::show)
            .needs(View, "Show a release with its deltas.")
            .of(releases::RELEASE)
            .answers::<ReleaseDetails>(200, "The release."),
        Operation::delete("/releases/{name}", releases::delete)
            .needs(Release, "Delete a release that no campaign uses.")
            .of(releases::RELEASE)
            .answers::<ReleaseAnswer>(200, "It is gone; this is what it was.")
            .can_conflict(),
    ]
}

fn of_campaigns() -> Vec<Operation> {
    vec![
        Operation::get("/campaigns", campaigns::list)
            .needs(View, "List the campaigns, by name.")
            .lists::<CampaignAnswer>(),
        Operation::post("/campaigns", new_campaign::create)
            .needs(Operate, "Plan a campaign.")
            .takes::<NewCampaign>()
            .answers::<CampaignAnswer>(201, "It is planned; nothing goes out yet.")
            .can_conflict(),
        Operation::post(dry_run::PATH, dry_run::dry_run)
            .needs(View, "Say what a campaign would do, from what is known by now; nothing is sent or written.")
            .takes::<DryRun>()
            .answers::<DryRunAnswer>(200, "How many vehicles would get what, and a page of them."),
        Operation::get("/campaigns/{name}", campaigns::show)
            .needs(View, "Show a campaign.")
            .of(campaigns::CAMPAIGN)
            .answers::<CampaignAnswer>(200, "The campaign."),
        Operation::post("/campaigns/{name}/start", campaigns::start)
            .needs(Operate, "Start a campaign; one that runs goes on.")
            .of(campaigns::CAMPAIGN)
            .answers::<CampaignAnswer>(200, "It runs.")
            .can_conflict(),
        Operation::post("/campaigns/{name}/approve", approvals::approve)
            .needs(Operate, "Approve a campaign, or a wave of it, as another person than the one who planned or started it.")
            .of(campaigns::CAMPAIGN)
            .takes::<Word>()
            .answers::<CampaignAnswer>(200, "It may start, or its wave opens in a moment.")
            .can_conflict(),
        Operation::post("/campaigns/{name}/reject", approvals::reject)
            .needs(Operate, "Reject a campaign, or a wave of it; it can be approved later.")
            .of(campaigns::CAMPAIGN)
            .takes::<Word>()
            .answers::<CampaignAnswer>(200, "It does not start, or its wave stays closed.")
            .can_conflict(),
        Operation::post("/campaigns/{name}/pause", campaigns::pause)
            .needs(Operate, "Pause a campaign: no vehicle is sent a StartDownload; those that have one go on.")
            .of(campaigns::CAMPAIGN)
            .answers::<CampaignAnswer>(200, "It is paused.")
            .can_conflict(),
        Operation::post("/campaigns/{name}/resume", campaigns::resume)
            .needs(Operate, "Let a campaign go on that is paused, or that has stopped by its rule.")
            .of(campaigns::CAMPAIGN)
            .answers::<CampaignAnswer>(200, "It runs.")
            .can_conflict(),
        Operation::post("/campaigns/{name}/open-wave", campaigns::open_wave)
            .needs(Operate, "Open the next wave of a campaign, whatever else it waits for but an approval.")
            .of(campaigns::CAMPAIGN)
            .answers::<CampaignAnswer>(200, "The wave opens in a moment.")
            .can_conflict(),
        Operation::post("/campaigns/{name}/retry", campaigns::retry)
            .needs(Operate, "Try updates again that ended without a change, by why they ended.")
            .of(campaigns::CAMPAIGN)
            .takes::<Retry>()
            .answers::<Retried>(200, "So many go on where their vehicles are connected, the others at their next WakeUp.")
            .can_conflict(),
        Operation::post("/campaigns/{name}/abort", campaigns::abort)
            .needs(Operate, "End a campaign for good: updates are cancelled where they can be, the others end by themselves.")
            .of(campaigns::CAMPAIGN)
            .takes::<CancelReason>()
            .answers::<CampaignAnswer>(200, "It is aborted; its updates end one after the other.")
            .can_conflict(),
        Operation::get("/campaigns/{name}/vehicles", campaigns::vehicles)
            .needs(View, "List the updates of a campaign, by vehicle.")
            .lists::<UpdateAnswer>(),
        Operation::post("/campaigns/{name}/vehicles/{vehicle_id}/cancel", campaigns::cancel)
            .needs(Operate, "Cancel the update of one vehicle, as long as no boot flag is swapped.")
            .takes::<CancelReason>()
            .answers::<UpdateAnswer>(200, "It is cancelled, or the vehicle is asked to.")
            .can_conflict(),
        Operation::post("/campaigns/{name}/vehicles/{vehicle_id}/rollback", campaigns::rollback)
            .needs(Operate, "Roll back the update of one vehicle.")
            .answers::<UpdateAnswer>(200, "The vehicle is asked to.")
            .can_conflict(),
    ]
}

fn of_evidence() -> Vec<Operation> {
    vec![
        Operation::get("/evidence/key", evidence::key)
            .needs(View, "Show the public key that evidence is signed with.")
            .answers::<KeyAnswer>(200, "The key."),
        Operation::get("/evidence/rxswins", evidence::register)
            .needs(View, "List the register of RXSWINs: every revision, by vehicle type and RXSWIN.")
            .lists::<RevisionAnswer>(),
        Operation::post("/evidence/rxswins", evidence::set)
            .needs(Release, "Register the software of an RXSWIN of a vehicle type; earlier revisions stay.")
            .takes::<NewRevision>()
            .answers::<RevisionAnswer>(200, "It was registered so already.")
            .answers::<RevisionAnswer>(201, "It is registered as a further revision."),
        Operation::get("/evidence/campaigns/{name}", evidence::campaign)
            .needs(View, "Export the records of a campaign as a signed archive (docs/evidence.md).")
            .answers_octets(200, "The archive; it is whole if its signature holds.", evidence::ARCHIVE)
            .can_conflict(),
        Operation::get("/evidence/vehicles/{vehicle_id}", evidence::vehicle)
            .needs(View, "Export the records of a vehicle's updates as a signed archive.")
            .answers_octets(200, "The archive; it is whole if its signature holds.", evidence::ARCHIVE)
            .can_conflict(),
    ]
}

fn of_webhooks() -> Vec<Operation> {
    vec![
        Operation::get("/webhooks", webhooks::list)
            .needs(Administer, "List the webhooks, by name; not the secrets.")
            .lists::<WebhookAnswer>(),
        Operation::post("/webhooks", webhooks::create)
            .needs(Administer, "Make a webhook; this answer is the only one that shows its secret.")
            .takes::<NewWebhook>()
            .answers::<MadeWebhook>(201, "Changes from now on are sent to it.")
            .shows_a_secret()
            .can_conflict(),
        Operation::get("/webhooks/{name}", webhooks::show)
            .needs(Administer, "Show a webhook; not its secret.")
            .of(webhooks::WEBHOOK)
            .answers::<WebhookAnswer>(200, "The webhook."),
        Operation::patch("/webhooks/{name}", webhooks::change)
            .needs(Administer, "Change a webhook, enable or disable it.")
            .of(webhooks::WEBHOOK)
            .takes::<WebhookChange>()
            .answers::<WebhookAnswer>(200, "The webhook as it is now."),
        Operation::delete("/webhooks/{name}", webhooks::delete)
            .needs(Administer, "Delete a webhook with what it has still to deliver.")
            .of(webhooks::WEBHOOK)
            .answers::<WebhookAnswer>(200, "What it was."),
        Operation::post("/webhooks/{name}/rotate-secret", webhooks::rotate)
            .needs(Administer, "Give a webhook a new secret; for a day the earlier one signs too.")
            .answers::<MadeWebhook>(200, "This answer is the only one that shows the new secret.")
            .shows_a_secret(),
        Operation::post("/webhooks/{name}/test", webhooks::test)
            .needs(Administer, "Send an event of the type webhook.test.")
            .answers::<DeliveryAnswer>(200, "It is queued; the list of deliveries tells what came of it.")
            .can_conflict(),
        Operation::get("/webhooks/{name}/deliveries", webhooks::deliveries)
            .needs(Administer, "List what a webhook has to deliver and has delivered, newest first.")
            .lists::<DeliveryAnswer>(),
        Operation::post("/webhooks/{name}/deliveries/{delivery_id}/redeliver", webhooks::redeliver)
            .needs(Administer, "Deliver once more, under the same id.")
            .answers::<DeliveryAnswer>(200, "It is queued.")
            .can_conflict(),
    ]
}

fn of_the_server() -> Vec<Operation> {
    vec![
        Operation::get("/tokens", tokens::list)
            .needs(Administer, "List the operators' tokens, by name; not the secrets.")
            .lists::<TokenAnswer>(),
        Operation::post("/tokens", tokens::create)
            .needs(Administer, "Make a token; this answer is the only one that shows it.")
            .takes::<NewToken>()
            .answers::<MadeToken>(201, "It is made.")
            .shows_a_secret()
            .can_conflict(),
        Operation::get("/tokens/{name}", tokens::show)
            .needs(Administer, "Show a token; not the secret.")
            .of(tokens::TOKEN)
            .answers::<TokenAnswer>(200, "The token."),
        Operation::post("/tokens/{name}/revoke", tokens::revoke)
            .needs(Administer, "Revoke a token, at once.")
            .of(tokens::TOKEN)
            .answers::<TokenAnswer>(200, "It opens nothing any more.")
            .can_conflict(),
        Operation::get("/users", users::list)
            .needs(Administer, "List those who may sign in to the console, by name.")
            .lists::<UserAnswer>(),
        Operation::post("/users", users::invite)
            .needs(Administer, "Invite somebody to the console, or give them a new link; this answer is the only one that shows it.")
            .takes::<Invitation>()
            .answers::<MadeLink>(201, "Whoever opens the link chooses a password; it is good for one use within two days.")
            .shows_a_secret(),
        Operation::post("/users/{name}/scope", users::set_scope)
            .needs(Administer, "Give a user of the console another scope.")
            .of(users::USER)
            .takes::<NewScope>()
            .answers::<UserAnswer>(200, "The user as it is now.")
            .can_conflict(),
        Operation::post("/users/{name}/sign-out", users::sign_out)
            .needs(Administer, "Sign a user out everywhere.")
            .of(users::USER)
            .answers::<UserAnswer>(200, "No browser is signed in as this user any more."),
        Operation::post("/users/{name}/disable", users::disable)
            .needs(Administer, "Let a user sign in no more; the name stays taken.")
            .of(users::USER)
            .answers::<UserAnswer>(200, "The user is out.")
            .can_conflict(),
        Operation::post("/users/{name}/enable", users::enable)
            .needs(Administer, "Let a user sign in again.")
            .of(users::USER)
            .answers::<UserAnswer>(200, "The user may sign in."),
        Operation::get("/audit", audit_log::list)
            .needs(View, "List who changed what.")
            .takes_query::<AuditQuery>()
            .answers::<AuditPage>(200, "A page of the audit log."),
        Operation::get("/events", events::events)
            .needs(
                View,
                "Tell what changes: a page, or for whoever accepts text/event-stream a stream that goes on.",
            )
            .takes_query::<EventsQuery>()
            .streams(events::LAST_EVENT_ID)
            .answers::<EventPage>(200, "Changes after a place, oldest first."),
        Operation::get("/openapi.json", super::openapi)
            .needs(View, "This document.")
            .answers::<serde_json::Value>(200, "OpenAPI 3.1."),
    ]
}
