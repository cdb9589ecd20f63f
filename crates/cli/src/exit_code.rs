//! How the program ends, for scripts: one number for each kind of trouble that they treat differently.

use std::process::ExitCode;

use reqwest::StatusCode;

use crate::operator::OperatorError;

/// What did not work, and is none of the following.
pub(crate) const FAILED: u8 = 1;
/// The command line cannot be understood; what clap ends with.
const USAGE: u8 = 2;
/// The server refused: the thing exists already, is in another state, or was asked for wrongly.
const REFUSED: u8 = 3;
const NOT_FOUND: u8 = 4;
/// No token, one that is not taken, or one whose scope does not suffice.
const NOT_ALLOWED: u8 = 5;
/// The server is not reached, is not trusted, or cannot answer now.
const NOT_REACHED: u8 = 6;
/// `--wait`: vehicles failed, or the campaign was stopped or aborted.
pub(crate) const NOT_AS_WISHED: u8 = 7;
/// `--wait`: the time of `--timeout` is over.
pub(crate) const TIMED_OUT: u8 = 8;
/// Ctrl-C, as shells count it.
pub(crate) const INTERRUPTED: u8 = 130;

/// The table, as the help shows it.
pub(crate) const TABLE: &str = "\
Exit codes:
    0  done
    1  failed, for another reason than those below
    2  the command line cannot be understood
    3  the server refused: the thing exists already, is in another state, or was asked for wrongly
    4  there is no such campaign, vehicle, release, group or token
    5  not allowed: no token, one that is not taken, or one whose scope does not suffice
    6  the server is not reached, not trusted, or cannot answer now
    7  --wait: vehicles failed, or the campaign was stopped or aborted
    8  --wait: the time of --timeout is over; the campaign goes on
  130  Ctrl-C
check-message and store verify have codes of their own: see their help.";

/// The code for what went wrong.
pub(crate) fn of(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(number(error))
}

fn number(error: &anyhow::Error) -> u8 {
    match error.chain().find_map(|cause| cause.downcast_ref::<OperatorError>()) {
        Some(error) => of_operator(error),
        None => FAILED,
    }
}

fn of_operator(error: &OperatorError) -> u8 {
    match error {
        OperatorError::NoToken
        | OperatorError::TokenFile { .. }
        | OperatorError::TokenForm
        | OperatorError::Unauthorized { .. } => NOT_ALLOWED,
        OperatorError::Address { .. } => USAGE,
        OperatorError::Unreachable { .. }
        | OperatorError::Untrusted { .. }
        | OperatorError::NoTls { .. }
        | OperatorError::NotOurs { .. } => NOT_REACHED,
        OperatorError::Refused { status, .. } => of_status(*status),
        OperatorError::RefusedLines { .. } => REFUSED,
        OperatorError::Ca { .. } | OperatorError::Setup(_) => FAILED,
    }
}

fn of_status(status: StatusCode) -> u8 {
    match status {
        StatusCode::NOT_FOUND => NOT_FOUND,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => NOT_ALLOWED,
        status if status.is_server_error() => NOT_REACHED,
        _ => REFUSED,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn the_code_tells_what_kind_of_trouble_it_is_also_below_other_errors() {
        let refused =
            |status| OperatorError::Refused { status, code: "CODE".to_owned(), message: "why".to_owned() };
        for (error, code) in [
            (OperatorError::NoToken, 5),
            (refused(StatusCode::CONFLICT), 3),
            (refused(StatusCode::BAD_REQUEST), 3),
            (refused(StatusCode::NOT_FOUND), 4),
            (refused(StatusCode::FORBIDDEN), 5),
            (refused(StatusCode::SERVICE_UNAVAILABLE), 6),
            (OperatorError::TokenForm, 5),
            (OperatorError::Address { found: "ftp://x".to_owned() }, 2),
        ] {
            let error: anyhow::Error = Err::<(), _>(error).context("while doing something").unwrap_err();
            assert_eq!(number(&error), code, "{error:?}");
        }
        assert_eq!(number(&anyhow::anyhow!("something else")), 1);
    }

    #[test]
    fn every_code_stands_in_the_table() {
        let codes: Vec<u8> =
            TABLE.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
        let known = [
            0,
            FAILED,
            USAGE,
            REFUSED,
            NOT_FOUND,
            NOT_ALLOWED,
            NOT_REACHED,
            NOT_AS_WISHED,
            TIMED_OUT,
            INTERRUPTED,
        ];
        assert_eq!(codes, known);
    }
}
