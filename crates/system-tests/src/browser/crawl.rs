//! All screens that links lead to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Browser;

/// The addresses that a page's own links lead to, without what is fetched as a file.
const LINKS: &str = "return [...document.querySelectorAll('a[href]:not([download])')].map((link) => new URL(link.href)) \
    .filter((to) => to.origin === location.origin).map((to) => to.pathname + to.search)";

/// What stands below these is the name of one of many.
const OF_MANY: [&str; 8] =
    ["campaigns", "evidence", "groups", "releases", "tokens", "uploads", "vehicles", "webhooks"];
/// Of these it is not.
const PAGES_OF_THEIR_OWN: [&str; 4] = ["import", "new", "plan", "rxswins"];

/// The screen that an address is one of: without what is particular to one campaign, vehicle, or page of a list.
fn screen(path: &str) -> String {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let mut screen = String::new();
    let mut before = "";
    for part in path.trim_matches('/').split('/') {
        let is_name = OF_MANY.contains(&before) && !PAGES_OF_THEIR_OWN.contains(&part)
            || part.bytes().any(|octet| octet.is_ascii_digit());
        screen.push('/');
        screen.push_str(if is_name { "*" } else { part });
        before = part;
    }
    let asked: BTreeSet<&str> = query.split('&').filter_map(|pair| pair.split('=').next()).collect();
    let asked: Vec<&str> = asked.into_iter().filter(|name| !name.is_empty()).collect();
    if asked.is_empty() { screen } else { format!("{screen}?{}", asked.join("&")) }
}

impl Browser {
    /// Opens every screen that links lead to from `/` on, each at most so often with other content, and has it looked at.
    /// Gives how often each was opened.
    pub async fn every_screen(
        &self,
        most: usize,
        mut look_at: impl AsyncFnMut(&str, &str),
    ) -> BTreeMap<String, usize> {
        let mut opened: BTreeMap<String, usize> = BTreeMap::new();
        let mut known = BTreeSet::from(["/".to_owned()]);
        let mut next: VecDeque<String> = known.iter().cloned().collect();
        while let Some(path) = next.pop_front() {
            let screen = screen(&path);
            let most = if screen.contains('?') { 1 } else { most };
            if opened.get(&screen).is_some_and(|times| *times >= most) || !self.is_page(&path).await {
                continue;
            }
            *opened.entry(screen.clone()).or_default() += 1;
            self.goto(&path).await;
            look_at(&path, &screen).await;
            for link in self.run(LINKS, vec![]).await.as_array().expect("a list") {
                let link = link.as_str().unwrap_or_default().to_owned();
                if known.insert(link.clone()) {
                    next.push_back(link);
                }
            }
        }
        opened
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_is_one_whatever_it_shows() {
        for (path, expected) in [
            ("/", "/"),
            ("/campaigns", "/campaigns"),
            ("/campaigns/winter?state=waiting&after=V1", "/campaigns/*?after&state"),
            ("/campaigns/winter/pause", "/campaigns/*/pause"),
            ("/campaigns/new", "/campaigns/new"),
            ("/vehicles/VEH_001/messages/0192", "/vehicles/*/messages/*"),
        ] {
            assert_eq!(screen(path), expected);
        }
    }
}
