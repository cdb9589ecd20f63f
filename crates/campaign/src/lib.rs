//! Who gets what and when: releases, the plan of one vehicle, the vehicle update of protocol.md §8, boot loops,
//! selections of vehicles, the rollout of a campaign, the approval by a second person.
//! Pure: values and `now` come in, decisions go out; sending, storing and waiting are the server's.

mod approval;
mod boot_loop;
mod delta;
mod eligibility;
mod ineligible_reason;
mod plan;
mod release;
mod retry_policy;
mod rollout;
mod rules;
mod schedule;
mod selection;
mod settings;
mod starting;
mod vehicle_update;
mod version;
mod version_key;
mod window;

pub use approval::*;
pub use boot_loop::*;
pub use delta::*;
pub use ineligible_reason::*;
pub use plan::*;
pub use release::*;
pub use retry_policy::*;
pub use rollout::*;
pub use rules::*;
pub use schedule::*;
pub use selection::*;
pub use settings::*;
pub use starting::*;
pub use vehicle_update::*;
pub use version::*;
pub use version_key::*;
pub use window::*;
