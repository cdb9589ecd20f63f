//! Nothing but the keyboard.

use fantoccini::actions::{InputSource, KeyAction, KeyActions};

use super::Browser;

/// The keys that are enough to use a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// To what comes next.
    Tab,
    /// Sends a form, follows a link.
    Enter,
    /// Ticks a box, presses a button.
    Space,
    /// The next one of a choice.
    Down,
    /// A letter or sign.
    Sign(char),
}

impl Key {
    fn code(self) -> char {
        match self {
            Self::Tab => '\u{E004}',
            Self::Enter => '\u{E007}',
            Self::Space => ' ',
            Self::Down => '\u{E015}',
            Self::Sign(sign) => sign,
        }
    }
}

/// How what has the focus is called, and whether that is to be seen.
const FOCUSED: &str = "const at = document.activeElement; if (!at || at === document.body) return ['', true]; \
    const label = at.labels && at.labels.length ? at.labels[0].innerText : ''; \
    const style = getComputedStyle(at); \
    const isSeen = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 1; \
    return [(label || at.getAttribute('aria-label') || at.innerText || at.name || at.id || at.tagName).trim(), isSeen]";

impl Browser {
    /// Presses a key and lets it go.
    pub async fn key(&self, key: Key) {
        let code = key.code();
        let stroke = KeyActions::new("keyboard".to_owned());
        let stroke = stroke.then(KeyAction::Down { value: code }).then(KeyAction::Up { value: code });
        self.page.perform_actions(stroke).await.unwrap();
    }

    /// Types a text, sign by sign, into whatever has the focus.
    pub async fn types(&self, text: &str) {
        for sign in text.chars() {
            self.key(Key::Sign(sign)).await;
        }
    }

    /// How what has the focus is called; asserts that the focus is to be seen.
    pub async fn focused(&self) -> String {
        let answer = self.run(FOCUSED, vec![]).await;
        let name = answer[0].as_str().unwrap_or_default().to_owned();
        assert_eq!(answer[1], true, "{name:?} has the focus, and nobody can see it");
        name
    }

    /// Goes on with Tab until what is called so has the focus; asserts at each step that the focus is to be seen.
    pub async fn tabs_to(&self, name: &str) {
        let mut passed = Vec::new();
        for _ in 0..200 {
            let now = self.focused().await;
            if now == name {
                return;
            }
            passed.push(now);
            self.key(Key::Tab).await;
        }
        panic!("Tab never comes to {name:?}; it came by {passed:?}");
    }
}
