//! The words of a query.

use farrier_protocol::Text;

use super::{ExpectedInQuery, FoundInQuery, QueryError};

/// One word of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A field, a keyword, or a value that lacks its quotes.
    Word(String),
    /// A text in double quotes, without its escapes.
    Quoted(Text),
    /// An operator, a parenthesis or a comma.
    Symbol(&'static str),
    /// Nothing is left.
    End,
}

/// Longer ones stand before those that they begin with.
const SYMBOLS: [&str; 9] = ["!=", "<=", ">=", "=", "<", ">", "(", ")", ","];

impl Token {
    pub(super) fn is_symbol(&self, symbol: &str) -> bool {
        matches!(self, Self::Symbol(found) if *found == symbol)
    }

    /// Letter case does not count.
    pub(super) fn is_keyword(&self, keyword: &str) -> bool {
        matches!(self, Self::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    /// The token as what was found in place of another.
    pub(super) fn found(&self) -> FoundInQuery {
        match self {
            Self::Word(word) => FoundInQuery::Word(shortened(word)),
            Self::Quoted(text) => FoundInQuery::Text(shortened(text.as_str())),
            Self::Symbol(symbol) => FoundInQuery::Symbol(symbol),
            Self::End => FoundInQuery::End,
        }
    }
}

/// At most 40 characters of what an operator wrote.
pub(super) fn shortened(text: &str) -> String {
    const LIMIT: usize = 40;
    let dots = if text.chars().nth(LIMIT).is_some() { "…" } else { "" };
    format!("{}{dots}", text.chars().take(LIMIT).collect::<String>())
}

/// Takes one token after the other off a query.
pub(super) struct Lexer<'q> {
    query: &'q str,
    position: usize,
}

impl<'q> Lexer<'q> {
    pub(super) fn new(query: &'q str) -> Self {
        Self { query, position: 0 }
    }

    /// The next token and where it begins.
    pub(super) fn next(&mut self) -> Result<(Token, usize), QueryError> {
        let blank = self.rest().len().saturating_sub(self.rest().trim_start().len());
        self.skip(blank);
        let (rest, start) = (self.rest(), self.position);
        let Some(first) = rest.chars().next() else { return Ok((Token::End, start)) };
        if let Some(symbol) = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol)) {
            self.skip(symbol.len());
            Ok((Token::Symbol(symbol), start))
        } else if first == '"' {
            Ok((Token::Quoted(self.quoted(start)?), start))
        } else if is_of_a_word(first) {
            let word: String = rest.chars().take_while(|c| is_of_a_word(*c)).collect();
            self.skip(word.len());
            Ok((Token::Word(word), start))
        } else {
            let found = FoundInQuery::Character(first);
            Err(QueryError::new(self.query, start, ExpectedInQuery::Token, found))
        }
    }

    fn quoted(&mut self, start: usize) -> Result<Text, QueryError> {
        let mut text = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((place, c)) = chars.next() {
            match c {
                '"' => {
                    self.skip(place.saturating_add(1));
                    return self.checked(text, start);
                }
                '\\' => match chars.next() {
                    Some((_, escaped @ ('"' | '\\'))) => text.push(escaped),
                    Some((_, other)) => {
                        let found = FoundInQuery::Escaped(other);
                        let position = start.saturating_add(place);
                        return Err(QueryError::new(self.query, position, ExpectedInQuery::Escape, found));
                    }
                    None => break,
                },
                _ => text.push(c),
            }
        }
        Err(QueryError::new(self.query, start, ExpectedInQuery::EndOfText, FoundInQuery::End))
    }

    /// No vehicle has a value that is not a `Text`: a query for one is a mistake.
    fn checked(&self, text: String, start: usize) -> Result<Text, QueryError> {
        Text::try_from(text).map_err(|error| {
            let expected = ExpectedInQuery::ValidText(error.expected);
            QueryError::new(self.query, start, expected, FoundInQuery::Value(error.found))
        })
    }

    fn rest(&self) -> &'q str {
        self.query.get(self.position..).unwrap_or_default()
    }

    fn skip(&mut self, bytes: usize) {
        self.position = self.position.saturating_add(bytes);
    }
}

fn is_of_a_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '-')
}
