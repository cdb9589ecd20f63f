//! The same records for people: pages without scripts and outside requests, made to be printed. Everything that comes from
//! elsewhere is escaped.

use std::fmt::{self, Display, Write};

use farrier_protocol::{EcuEntry, Sha256, Text, UnixMillis};

use super::RegisteredSoftware;
use super::export::RecordsFile;
use super::records::{
    AuditReference, CampaignRecord, ConfigurationRecord, TypeRecord, UpdateRecord, VehicleRecord,
};
use crate::audit::AuditHead;

const STYLE: &str = "\
@page{size:A4;margin:18mm 15mm}\
body{font:10.5pt/1.45 system-ui,'Noto Sans',sans-serif;color:#1a1a1a;max-width:58rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.6rem;margin:0 0 .3rem}h2{font-size:1.2rem;margin:2rem 0 .5rem;border-bottom:1px solid #999;padding-bottom:.2rem}\
h3{font-size:1rem;margin:1.2rem 0 .3rem}p{margin:.4rem 0}\
table{border-collapse:collapse;width:100%;margin:.4rem 0 1rem}\
th,td{text-align:left;vertical-align:top;padding:.25rem .5rem;border:1px solid #ccc;overflow-wrap:break-word}\
.scroll{overflow-x:auto}th+td,td:last-child{overflow-wrap:anywhere}\
th{background:#f1f1ee;font-weight:600}tbody th{width:32%}\
code{font:9pt ui-monospace,'DejaVu Sans Mono',monospace;overflow-wrap:anywhere}\
.not-stated{color:#8a4b00}.good{color:#1d6b35}.bad{color:#a01818}\
section{break-inside:auto}section+section{margin-top:2.5rem}thead{display:table-header-group}tr{break-inside:avoid}\
h2,h3{break-after:avoid}\
@media print{body{margin:0;max-width:none;padding:0}section.update{break-before:page}section.update:first-of-type{break-before:auto}}";

/// Text from elsewhere, as it may stand in a page.
struct Escaped<'t>(&'t str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // Most control characters may not stand in HTML, not even as references.
                c if c.is_control() => f.write_char('\u{fffd}')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// A part of a page, made of nothing but the elements here and of text that is escaped; so it goes out as it is.
pub(crate) struct Fragment(String);

impl Display for Fragment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl askama::filters::HtmlSafe for Fragment {}

impl Fragment {
    pub(super) fn of_update(record: &UpdateRecord) -> Self {
        Self(update(record))
    }

    pub(super) fn of_campaign(record: &CampaignRecord) -> Self {
        Self(campaign(record))
    }
}

fn text(content: &impl Display) -> String {
    Escaped(&content.to_string()).to_string()
}

fn optional<T: Display>(content: Option<&T>) -> String {
    content.map_or_else(|| "–".to_owned(), text)
}

/// `2026-11-21 00:29:31 UTC`
fn moment(at: UnixMillis) -> String {
    let Ok(moment) = time::OffsetDateTime::from_unix_timestamp(at.0.div_euclid(1_000)) else {
        return format!("{} ms since 1970", at.0);
    };
    let (date, (hour, minute, second)) = (moment.date(), moment.time().as_hms());
    let month = u8::from(date.month());
    format!("{:04}-{month:02}-{:02} {hour:02}:{minute:02}:{second:02} UTC", date.year(), date.day())
}

fn optional_moment(at: Option<UnixMillis>) -> String {
    at.map_or_else(|| "–".to_owned(), moment)
}

/// A page around its content.
fn page(title: &str, content: &str) -> String {
    let title = Escaped(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{content}</body>\n</html>\n"
    )
}

/// A table; cells are HTML already.
fn table(headings: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let heading: String = headings.iter().map(|heading| format!("<th>{heading}</th>")).collect();
    let rows: String = rows
        .map(|row| {
            let cells: String = row.iter().map(|cell| format!("<td>{cell}</td>")).collect();
            format!("<tr>{cells}</tr>\n")
        })
        .collect();
    format!(
        "<div class=\"scroll\"><table>\n<thead><tr>{heading}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n"
    )
}

/// A table of names and values; values are HTML already.
fn facts<'f>(rows: impl IntoIterator<Item = (&'f str, String)>) -> String {
    let rows: String = rows
        .into_iter()
        .map(|(name, value)| format!("<tr><th scope=\"row\">{name}</th><td>{value}</td></tr>\n"))
        .collect();
    format!("<div class=\"scroll\"><table>\n<tbody>\n{rows}</tbody>\n</table></div>\n")
}

fn digest(digest: &Sha256) -> String {
    format!("<code>{digest}</code>")
}

fn audit(entries: &[AuditReference]) -> String {
    if entries.is_empty() {
        return "<p>Nothing.</p>\n".to_owned();
    }
    let row = |entry: &AuditReference| {
        vec![
            entry.seq.to_string(),
            moment(entry.at_ms),
            text(&entry.actor),
            text(&entry.action),
            optional(entry.detail.as_ref()),
            digest(&entry.sha256),
        ]
    };
    table(&["Entry", "When", "Who", "What", "In words", "SHA-256"], entries.iter().map(row))
}

/// What the first page tells.
pub(super) struct Index<'i> {
    pub(super) subject: &'i str,
    pub(super) server: &'i str,
    pub(super) at: UnixMillis,
    pub(super) key_sha256: Sha256,
    pub(super) campaigns: &'i [CampaignRecord],
    pub(super) vehicle: Option<&'i VehicleRecord>,
    pub(super) files: &'i [RecordsFile],
    pub(super) audit_head: AuditHead,
}

/// The first page: what the archive is, its contents, the campaigns.
pub(super) fn index(index: &Index<'_>) -> String {
    let mut content = format!(
        "<h1>Evidence of software updates</h1>\n<p>{} · records according to UN Regulation No. 156</p>\n",
        Escaped(index.subject)
    );
    content += &facts([
        ("Exported", moment(index.at)),
        ("Server", text(&index.server)),
        ("Key that has signed (SHA-256)", digest(&index.key_sha256)),
        ("Audit log ends with", format!("<code>{}</code>", index.audit_head)),
        (
            "How to check it",
            "<code>farrier evidence verify FILE --key evidence.pub.pem</code>; what the pages say is also in the JSON \
             files beside them"
                .to_owned(),
        ),
    ]);
    content += "<h2 id=\"contents\">Contents</h2>\n<ul>\n";
    for campaign in index.campaigns {
        let name = text(&campaign.campaign);
        let _ = writeln!(content, "<li><a href=\"#campaign-{name}\">Campaign {name}</a></li>");
    }
    for file in index.files {
        let _ = writeln!(
            content,
            "<li><a href=\"vehicles/{:06}.html\">Vehicle updates: {} to {} ({})</a></li>",
            file.number,
            text(&file.first),
            text(&file.last),
            file.updates
        );
    }
    content += "<li>Register of RXSWINs: <code>register/</code></li>\n<li>Audit log: <code>audit/</code></li>\n</ul>\n";
    if let Some(vehicle) = index.vehicle {
        content += "<h2>Vehicle</h2>\n";
        content += &vehicle_facts(vehicle);
    }
    index.campaigns.iter().for_each(|record| content += &campaign(record));
    page(&format!("Evidence: {}", index.subject), &content)
}

fn vehicle_facts(vehicle: &VehicleRecord) -> String {
    facts([
        ("Vehicle", text(&vehicle.vehicle_id)),
        ("VIN", optional(vehicle.vin.as_ref())),
        ("Vehicle type", optional(vehicle.vehicle_type.as_ref())),
        ("Region", optional(vehicle.region.as_ref())),
        ("Gateway", text(&vehicle.gateway_id)),
    ])
}

fn campaign(record: &CampaignRecord) -> String {
    let name = text(&record.campaign);
    let mut content = format!("<section>\n<h2 id=\"campaign-{name}\">Campaign {name}</h2>\n");
    let stated = |stated: Option<&farrier_protocol::LongText>| {
        stated.map_or_else(|| "<span class=\"not-stated\">not stated</span>".to_owned(), text)
    };
    let mut rows: Vec<(String, String)> = vec![
        ("Release".to_owned(), text(&record.release)),
        ("Planned".to_owned(), moment(record.created_at_ms)),
        ("Started".to_owned(), optional_moment(record.started_at_ms)),
    ];
    if let Some(reason) = &record.stop_reason {
        rows.push((
            "Stopped by its rule".to_owned(),
            format!("{}: {}", optional_moment(record.stopped_at_ms), text(&reason.sentence())),
        ));
    }
    if let Some(reason) = &record.abort_reason {
        rows.push((
            "Aborted".to_owned(),
            format!("{}: {}", optional_moment(record.aborted_at_ms), text(reason)),
        ));
    }
    let states: Vec<_> =
        record.states.iter().map(|(state, number)| format!("{} {number}", text(state))).collect();
    rows.push(("Vehicles by state".to_owned(), states.join(", ")));
    let by_paragraph = record.statement.by_paragraph();
    rows.extend(by_paragraph.map(|(paragraph, name, said)| (format!("{name} ({paragraph})"), stated(said))));
    content += &facts(rows.iter().map(|(name, value)| (name.as_str(), value.clone())));
    content += "<h3>Software (7.1.1.2)</h3>\n";
    content += &table(
        &["Hardware", "For", "Version", "RXSWINs", "SHA-256"],
        record.images.iter().map(|image| {
            let rxswins: Vec<_> = image.rxswins.iter().map(text).collect();
            let whom = whom(&image.software);
            vec![
                text(&image.software.hw_part_no),
                whom,
                text(&image.software.version),
                rxswins.join(", "),
                digest(&image.software.sha256),
            ]
        }),
    );
    if !record.rules.is_empty() {
        content += "<h3>Demands across ECUs (7.1.1.5)</h3>\n<ul>\n";
        for rule in &record.rules {
            let _ = writeln!(content, "<li>The release {}.</li>", text(&rule.phrase()));
        }
        content += "</ul>\n";
    }
    content += "<h3>RXSWINs before and after (7.1.2.3)</h3>\n";
    if record.rxswins.is_empty() {
        content += "<p>The release changes none.</p>\n";
    }
    for changed in &record.rxswins {
        if changed.vehicle_types.is_empty() {
            let _ = writeln!(
                content,
                "<p class=\"bad\">{}: in the register of no vehicle type.</p>",
                text(&changed.rxswin)
            );
        }
        changed.vehicle_types.iter().for_each(|of_type| content += &rxswin(&changed.rxswin, of_type));
    }
    content += "<h3>Who did what with the campaign</h3>\n";
    content += &audit(&record.audit);
    content + "</section>\n"
}

fn whom(software: &RegisteredSoftware) -> String {
    let parts = [("supplier", &software.supplier), ("region", &software.region)];
    let parts: Vec<_> = parts
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name} {}", text(value.as_ref()?))))
        .collect();
    if parts.is_empty() { "all".to_owned() } else { parts.join(", ") }
}

fn rxswin(rxswin: &Text, of_type: &TypeRecord) -> String {
    let revision =
        |number: Option<u64>| number.map_or("none".to_owned(), |number| format!("revision {number}"));
    let mut content = format!(
        "<p><b>{}</b> of vehicle type {}: before {}, after {}.</p>\n",
        text(rxswin),
        text(&of_type.vehicle_type),
        revision(of_type.revision_before),
        revision(of_type.revision_after)
    );
    let rows = |when: &'static str, software: &[RegisteredSoftware]| {
        let row = move |software: &RegisteredSoftware| {
            vec![
                when.to_owned(),
                text(&software.hw_part_no),
                whom(software),
                text(&software.version),
                digest(&software.sha256),
            ]
        };
        software.iter().map(row).collect::<Vec<_>>()
    };
    let mut all = rows("before", &of_type.software_before);
    all.extend(rows("after", &of_type.software_after));
    all.extend(rows("<span class=\"bad\">not registered</span>", &of_type.not_registered));
    content += &table(&["", "Hardware", "For", "Version", "SHA-256"], all.into_iter());
    content
}

/// A page of vehicle updates.
pub(super) fn updates(number: usize, records: &[UpdateRecord]) -> String {
    let mut content = format!(
        "<h1>Vehicle updates, part {number}</h1>\n<p><a href=\"../index.html\">Overview</a></p>\n<ul>\n"
    );
    for record in records {
        let _ = writeln!(
            content,
            "<li><a href=\"#{}\">{} in campaign {}</a>: {}</li>",
            text(&record.update_id),
            text(&record.vehicle.vehicle_id),
            text(&record.campaign),
            outcome(record)
        );
    }
    content += "</ul>\n";
    records.iter().for_each(|record| content += &update(record));
    page(&format!("Vehicle updates, part {number}"), &content)
}

fn outcome(record: &UpdateRecord) -> String {
    let class = match record.state {
        "succeeded" | "up_to_date" => "good",
        "inconsistent" | "unknown" | "rolled_back" => "bad",
        _ => "",
    };
    format!("<span class=\"{class}\">{}</span>", text(&record.state.replace('_', " ")))
}

fn update(record: &UpdateRecord) -> String {
    let mut content = format!(
        "<section class=\"update\" id=\"{}\">\n<h2>{} in campaign {}</h2>\n",
        text(&record.update_id),
        text(&record.vehicle.vehicle_id),
        text(&record.campaign)
    );
    content += &vehicle_facts(&record.vehicle);
    content += &facts([
        ("Where it stands", outcome(record)),
        ("Selected", moment(record.selected_at_ms)),
        ("Started", optional_moment(record.started_at_ms)),
        ("Ended", optional_moment(record.ended_at_ms)),
        (
            "Compatibility with the last known configuration (7.1.2.4)",
            text(&record.compatibility.replace('_', " ")),
        ),
        ("Consent of the user", text(&record.user_consent.replace('_', " "))),
    ]);
    content += "<h3>Software before and after (7.1.2.2)</h3>\n";
    let changes = record.changes.iter().map(|change| {
        vec![
            text(&change.ecu_id),
            optional(change.hw_part_no.as_ref()),
            optional(change.before.as_ref()),
            optional(change.planned.as_ref()),
            optional(change.after.as_ref()),
            change.image_sha256.as_ref().map(digest).unwrap_or_default(),
        ]
    });
    content += &table(&["ECU", "Hardware", "Before", "Planned", "After", "SHA-256 of the image"], changes);
    for go in &record.gos {
        let _ = writeln!(content, "<h3>Go, {} (7.1.2.5 g)</h3>", moment(go.at_ms));
        let go = &go.content;
        content += &facts([
            ("Attempt", optional(go.attempt_id.as_ref())),
            ("Conditions that it was asked to judge", text(&go.conditions_asked.join(", "))),
            ("What it measured", text(&go.measured)),
            ("Its report", format!("<code>{}</code>", text(&go.report_msg_id))),
        ]);
    }
    for end in &record.ends {
        let _ = writeln!(content, "<h3>End, {}</h3>", moment(end.at_ms));
        let end = &end.content;
        let reasons: Vec<_> = end.reasons.iter().map(|reason| text(&reason.phrase())).collect();
        let found: Vec<_> = end.found.iter().map(|found| text(&found.phrase())).collect();
        let mut rows = vec![
            ("Outcome", text(&end.outcome.replace('_', " "))),
            ("In words", text(&end.sentence)),
            (
                "Shown by",
                end.shown_by.as_ref().map_or_else(
                    || "no inventory".to_owned(),
                    |shown| {
                        let message = optional(shown.msg_id.as_ref());
                        format!("inventory <code>{}</code>, message <code>{message}</code>", shown.vci_digest)
                    },
                ),
            ),
        ];
        rows.extend((!reasons.is_empty()).then(|| ("Reasons", reasons.join("; "))));
        rows.extend((!found.is_empty()).then(|| ("Found", found.join("; "))));
        content += &facts(rows);
        let exchanged = end.exchanged.iter().map(|message| {
            vec![
                moment(message.at_ms),
                text(&message.sent_by),
                text(&message.message),
                format!("<code>{}</code>", text(&message.msg_id)),
                optional(message.note.as_ref()),
            ]
        });
        content += &table(&["When", "From", "Message", "Id", "Note"], exchanged);
    }
    content += "<h3>States</h3>\n";
    content += &table(
        &["When", "State"],
        record.steps.iter().map(|step| vec![moment(step.at_ms), text(&step.state.replace('_', " "))]),
    );
    for (when, number) in
        [("before", record.configuration_before), ("after, as last known", record.configuration_after)]
    {
        if let Some(found) = record.configuration(number) {
            content += &configuration(when, found);
        }
    }
    content += "<h3>What operators did with this update</h3>\n";
    content += &audit(&record.audit);
    content + "</section>\n"
}

fn configuration(when: &str, found: &ConfigurationRecord) -> String {
    let mut content = format!(
        "<h3>Configuration {when}</h3>\n<p>Number {}, first seen {}, digest <code>{}</code></p>\n",
        found.number,
        moment(found.first_seen_at_ms),
        found.vci_digest
    );
    let row = |ecu: &EcuEntry| {
        vec![
            text(&ecu.ecu_id),
            optional(ecu.supplier_code.as_ref()),
            optional(ecu.hw_part_no.as_ref()),
            optional(ecu.sw_part_no.as_ref()),
            optional(ecu.sw_version.as_ref()),
            optional(ecu.bootloader_ver.as_ref()),
            optional(ecu.calibration_id.as_ref()),
        ]
    };
    content += &table(
        &["ECU", "Supplier", "Hardware", "Software", "Version", "Boot loader", "Calibration"],
        found.inventory.ecu_inventory.iter().map(row),
    );
    content
}
