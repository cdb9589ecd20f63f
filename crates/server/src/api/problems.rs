//! Every code that a refusal of the API can have: what it means, and what to do. The `type` of a problem document is the
//! address of its entry here.

use axum::http::StatusCode;

/// The list of all codes.
pub(super) const PATH: &str = "/api/v1/problems";
/// What one code means.
pub(super) const OF_CODE: &str = "/api/v1/problems/{code}";

/// What a code means.
pub(super) struct Meaning {
    pub(super) code: &'static str,
    pub(super) status: StatusCode,
    pub(super) means: &'static str,
    pub(super) what_to_do: &'static str,
}

const fn meaning(
    code: &'static str,
    status: StatusCode,
    means: &'static str,
    what_to_do: &'static str,
) -> Meaning {
    Meaning { code, status, means, what_to_do }
}

/// All codes, for those who tell them in another language.
#[cfg(test)]
pub(crate) fn codes() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|meaning| meaning.code)
}

/// All of them, by code.
pub(super) const ALL: &[Meaning] = &[
    meaning(
        "CAMPAIGN_ABORTED",
        StatusCode::CONFLICT,
        "The campaign was aborted, which is for good.",
        "Plan another campaign with the same release.",
    ),
    meaning(
        "CAMPAIGN_EXISTS",
        StatusCode::CONFLICT,
        "There is a campaign of that name.",
        "Choose another name, or look whether it is the one that you want.",
    ),
    meaning(
        "CAMPAIGN_NOT_STARTED",
        StatusCode::CONFLICT,
        "What was asked needs a campaign that has started.",
        "Start it first.",
    ),
    meaning(
        "CAMPAIGN_STARTED",
        StatusCode::CONFLICT,
        "What was asked is for campaigns that have not started.",
        "Pause or abort the campaign, or name the wave that is meant.",
    ),
    meaning(
        "EXPORTS_BUSY",
        StatusCode::CONFLICT,
        "As many archives of evidence are being made as are made at once.",
        "Try again when one of them is done.",
    ),
    meaning(
        "FORBIDDEN",
        StatusCode::FORBIDDEN,
        "The token's scope does not reach; needed_scopes names those that do.",
        "Ask an admin for a token with one of them.",
    ),
    meaning(
        "FROM_ELSEWHERE",
        StatusCode::FORBIDDEN,
        "A change in the console came from a page of another site.",
        "Open the console and try again.",
    ),
    meaning(
        "GROUP_EXISTS",
        StatusCode::CONFLICT,
        "There is a fleet group of that name.",
        "Choose another name, or change that group.",
    ),
    meaning(
        "IDEMPOTENCY_IN_PROGRESS",
        StatusCode::CONFLICT,
        "A request with the same Idempotency-Key is under way, or was done and its answer is lost.",
        "Wait a moment and send it again; if it stays so, look at what there is. Another key asks anew.",
    ),
    meaning(
        "IDEMPOTENCY_KEY_REUSED",
        StatusCode::UNPROCESSABLE_ENTITY,
        "The Idempotency-Key was given with another request within a day.",
        "Use a new key for each request, and the same one only to send the same again.",
    ),
    meaning(
        "IDEMPOTENCY_SECRET",
        StatusCode::CONFLICT,
        "An earlier request with the same Idempotency-Key was done; its answer showed a secret, which is not kept.",
        "If the secret is lost, revoke what was made, and make another with another name and another key.",
    ),
    meaning(
        "IDEMPOTENCY_TOO_MANY",
        StatusCode::CONFLICT,
        "The token has used as many Idempotency-Keys within a day as are remembered: 10000.",
        "Wait, or send requests that need no key without one.",
    ),
    meaning(
        "IMAGE_MISSING",
        StatusCode::CONFLICT,
        "The release names an image that was not uploaded.",
        "Upload it first, under its digest.",
    ),
    meaning(
        "IMPORT_REFUSED",
        StatusCode::UNPROCESSABLE_ENTITY,
        "Lines of an import are wrong, and nothing was imported; lines names the first 100.",
        "Correct the lines and send all again.",
    ),
    meaning(
        "INVALID_REQUEST",
        StatusCode::UNPROCESSABLE_ENTITY,
        "Something in the address, the query, a header or the body is against its rule; detail names it.",
        "Correct what detail says.",
    ),
    meaning(
        "INVENTORY_NOT_ASKED",
        StatusCode::CONFLICT,
        "The vehicle cannot be asked for its inventory now: it is away, quarantined, being updated, or asked already.",
        "Wait for what detail says, and ask again.",
    ),
    meaning(
        "LAST_ADMIN",
        StatusCode::CONFLICT,
        "It is the only token, or the only user of the console, with the scope admin; without it nobody could make another.",
        "Make another admin first.",
    ),
    meaning(
        "SINGLE_SIGN_ON",
        StatusCode::CONFLICT,
        "The user signs in with an OpenID Connect provider and has no password here.",
        "Change password and groups with the provider.",
    ),
    meaning(
        "LINK_SPENT",
        StatusCode::NOT_FOUND,
        "A link of the console was used already, or is too old.",
        "Ask an admin for a new one; for the first admin start the server again.",
    ),
    meaning(
        "METHOD_NOT_ALLOWED",
        StatusCode::METHOD_NOT_ALLOWED,
        "The address exists, but not for this method.",
        "Use a method that the header Allow names.",
    ),
    meaning(
        "NOT_APPROVED",
        StatusCode::CONFLICT,
        "The campaign or wave needs the approval of a second person and has none that counts.",
        "Let somebody else than the one who planned or started it approve it.",
    ),
    meaning(
        "NOT_FOUND",
        StatusCode::NOT_FOUND,
        "There is nothing of that name.",
        "List what there is and check the name.",
    ),
    meaning(
        "NOT_QUARANTINED",
        StatusCode::CONFLICT,
        "The vehicle is not quarantined.",
        "Nothing: it gets update commands already.",
    ),
    meaning("NO_APPROVAL_NEEDED", StatusCode::CONFLICT, "The campaign needs no approval.", "Start it."),
    meaning(
        "NO_SUCH_ROUTE",
        StatusCode::NOT_FOUND,
        "The API has nothing under this address.",
        "Look at the list of operations, at /api/docs.",
    ),
    meaning(
        "ORDER_REFUSED",
        StatusCode::CONFLICT,
        "The update of this vehicle is in a state in which the order changes nothing.",
        "Look at its state, and at why it is there.",
    ),
    meaning(
        "PRECONDITION_FAILED",
        StatusCode::PRECONDITION_FAILED,
        "It was changed since it was as If-Match names it; the header ETag says how it is now.",
        "Get it again, look at it, and send the change with its new ETag.",
    ),
    meaning(
        "QUERY_INVALID",
        StatusCode::UNPROCESSABLE_ENTITY,
        "A query cannot be read; place says where.",
        "Correct it; docs/operations.md has the language.",
    ),
    meaning(
        "RELEASE_EXISTS",
        StatusCode::CONFLICT,
        "There is a release of that name with other images or rules; a release never changes.",
        "Choose another name.",
    ),
    meaning(
        "RELEASE_INVALID",
        StatusCode::UNPROCESSABLE_ENTITY,
        "The images and rules do not make a release; pointer says where.",
        "Correct what detail says.",
    ),
    meaning(
        "RELEASE_IN_USE",
        StatusCode::CONFLICT,
        "A campaign uses the release; it stays, to show what was installed.",
        "Leave it.",
    ),
    meaning(
        "SAME_PERSON",
        StatusCode::CONFLICT,
        "Whoever planned a campaign, or started it, cannot approve it or its waves.",
        "Let somebody else approve it with a token or a user of their own.",
    ),
    meaning(
        "SIGNATURE_REQUIRED",
        StatusCode::CONFLICT,
        "The image has no signature by the release key, and the server does not have that key.",
        "Sign the image where the key is, and send the signature in Farrier-Signature.",
    ),
    meaning(
        "STORE_UNAVAILABLE",
        StatusCode::SERVICE_UNAVAILABLE,
        "The server cannot read or write its store at the moment.",
        "Try again; look at the server's log.",
    ),
    meaning(
        "TOKEN_EXISTS",
        StatusCode::CONFLICT,
        "There is or was a token of that name; a name stands for one token for ever.",
        "Choose another name.",
    ),
    meaning(
        "TOO_LARGE",
        StatusCode::PAYLOAD_TOO_LARGE,
        "The document is larger than 1 MiB.",
        "Send less at a time.",
    ),
    meaning(
        "TOO_MANY_STREAMS",
        StatusCode::SERVICE_UNAVAILABLE,
        "As many streams of events are open as this server keeps at once.",
        "Close one that is not needed, or try again later.",
    ),
    meaning(
        "TOO_MANY_WEBHOOKS",
        StatusCode::CONFLICT,
        "There are as many webhooks as a server may have.",
        "Delete one that is not needed.",
    ),
    meaning(
        "UNAUTHORISED",
        StatusCode::UNAUTHORIZED,
        "There is no token, or one that is unknown, revoked or expired.",
        "Send Authorization: Bearer TOKEN with one that an admin made by farrier token create.",
    ),
    meaning(
        "UPLOAD_BUSY",
        StatusCode::CONFLICT,
        "Another request is sending a part of this image.",
        "Wait until it is over, ask how far the upload is, and go on from there.",
    ),
    meaning(
        "UPLOAD_DIFFERS",
        StatusCode::CONFLICT,
        "An upload of this digest was begun with another size.",
        "Check the file; give the upload up and begin it anew.",
    ),
    meaning(
        "UPLOAD_NO_ROOM",
        StatusCode::CONFLICT,
        "The disk of the images has no room for this upload and those that were begun before.",
        "Make room, give up uploads that nobody goes on with, or wait until they expire.",
    ),
    meaning(
        "UPLOAD_OFFSET",
        StatusCode::CONFLICT,
        "The part does not begin where the upload ends; detail says where that is.",
        "Ask how far the upload is, and go on from there.",
    ),
    meaning(
        "UPLOAD_TOO_MANY",
        StatusCode::CONFLICT,
        "The token has begun as many uploads as it may: 16.",
        "Finish some or give them up.",
    ),
    meaning(
        "VEHICLE_EXISTS",
        StatusCode::CONFLICT,
        "Another vehicle has the id, or another pair of ids makes the same client id.",
        "Choose other ids.",
    ),
    meaning("VIN_TAKEN", StatusCode::CONFLICT, "Another vehicle has the VIN.", "Correct one of the two."),
    meaning(
        "WAVE_NOT_TO_APPROVE",
        StatusCode::CONFLICT,
        "The wave is not the next one of the campaign, or does not open by approval.",
        "Look which wave is next, and approve that one.",
    ),
    meaning(
        "WEBHOOK_DISABLED",
        StatusCode::CONFLICT,
        "The webhook is disabled, so nothing is sent to it.",
        "Enable it first.",
    ),
    meaning(
        "WEBHOOK_EXISTS",
        StatusCode::CONFLICT,
        "There is a webhook of that name.",
        "Choose another name, or change that webhook.",
    ),
];
