//! Which language a page is in: as the visitor chose, else as their browser asks.

use axum::http::HeaderMap;

use super::cookies::{self, LANGUAGE};
use super::texts::{ENGLISH, KOREAN, Texts};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Language {
    English,
    Korean,
}

impl Language {
    pub(super) const ALL: [Self; 2] = [Self::English, Self::Korean];

    pub(super) fn of(headers: &HeaderMap) -> Self {
        let chosen = cookies::value(headers, LANGUAGE).and_then(Self::by_code);
        chosen.unwrap_or_else(|| Self::asked_for(headers))
    }

    pub(super) fn by_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|language| language.code() == code)
    }

    /// As HTML and cookies name it.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Korean => "ko",
        }
    }

    /// As it names itself.
    pub(super) fn own_name(self) -> &'static str {
        match self {
            Self::English => "English",
            Self::Korean => "한국어",
        }
    }

    pub(super) fn texts(self) -> &'static Texts {
        match self {
            Self::English => &ENGLISH,
            Self::Korean => &KOREAN,
        }
    }

    /// The one that `Accept-Language` weighs most (RFC 9110, 12.5.4); English where it names neither.
    fn asked_for(headers: &HeaderMap) -> Self {
        let asked = headers.get(axum::http::header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
        let weighed = asked.unwrap_or_default().split(',').filter_map(|part| {
            let mut pieces = part.split(';').map(str::trim);
            let tag = pieces.next()?.to_ascii_lowercase();
            let weight = pieces.find_map(|piece| piece.strip_prefix("q=")).unwrap_or("1");
            let weight: f32 = weight.parse().ok().filter(|weight| (0.0..=1.0).contains(weight))?;
            let primary = tag.split('-').next()?;
            Self::by_code(primary).map(|language| (language, weight))
        });
        let best = weighed.fold(None, |best: Option<(Self, f32)>, (language, weight)| match best {
            Some((_, before)) if before >= weight => best,
            Some(_) | None if weight > 0.0 => Some((language, weight)),
            Some(_) | None => best,
        });
        best.map_or(Self::English, |(language, _)| language)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(value: &str) -> Language {
        let mut headers = HeaderMap::new();
        headers.insert("accept-language", value.parse().unwrap());
        Language::of(&headers)
    }

    #[test]
    fn the_language_is_the_one_that_weighs_most() {
        assert_eq!(asked("ko-KR,ko;q=0.9,en;q=0.8"), Language::Korean);
        assert_eq!(asked("en;q=0.5, ko;q=0.7"), Language::Korean);
        assert_eq!(asked("de, fr"), Language::English);
        assert_eq!(asked("ko;q=0"), Language::English);
        assert_eq!(asked("ko;q=x,en"), Language::English);
        assert_eq!(Language::of(&HeaderMap::new()), Language::English);
    }

    #[test]
    fn what_was_chosen_comes_first() {
        let mut headers = HeaderMap::new();
        headers.insert("accept-language", "ko".parse().unwrap());
        headers.insert("cookie", "a=b; farrier-language=en".parse().unwrap());
        assert_eq!(Language::of(&headers), Language::English);
    }
}
