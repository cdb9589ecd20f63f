//! Reads a query by recursive descent; each rule of the grammar is a function.

use farrier_protocol::Text;

use super::fields::{TAG, nearest};
use super::lexer::{Lexer, Token, shortened};
use super::{
    EcuField, EcuTest, ExpectedInQuery, FoundInQuery, QueryError, Selection, SortableVersion, TextTest,
    VehicleField, VehicleTest, VersionField, VersionOrder,
};

/// Bytes of a query, as it was written and in its canonical form.
pub(super) const MAX_QUERY_BYTES: usize = 4096;
/// Parentheses and `not`s around a comparison; the stack is bounded by it.
pub(super) const MAX_DEPTH: usize = 32;
/// Comparisons in a query.
pub(super) const MAX_TESTS: usize = 256;

pub(super) fn parse(query: &str) -> Result<Selection, QueryError> {
    if query.len() > MAX_QUERY_BYTES {
        let (expected, found) = (ExpectedInQuery::Bytes(MAX_QUERY_BYTES), FoundInQuery::Bytes(query.len()));
        return Err(QueryError::new(query, MAX_QUERY_BYTES, expected, found));
    }
    let mut parser = Parser::new(query)?;
    let selection = parser.query()?;
    // What can be read must also be readable as it is stored.
    let canonical = selection.to_string().len();
    if canonical > MAX_QUERY_BYTES {
        let expected = ExpectedInQuery::CanonicalBytes(MAX_QUERY_BYTES);
        return Err(QueryError::new(query, query.len(), expected, FoundInQuery::Bytes(canonical)));
    }
    Ok(selection)
}

/// What an `and` chain is made of.
enum Part {
    /// Comparisons of one ECU, which others can join.
    Ecu(Vec<EcuTest>),
    /// Anything else, and ECUs in parentheses.
    Whole(Selection),
}

impl From<Part> for Selection {
    fn from(part: Part) -> Self {
        match part {
            Part::Ecu(tests) => Self::HasEcu(tests),
            Part::Whole(selection) => selection,
        }
    }
}

/// A field by what its comparison becomes.
#[derive(Clone, Copy)]
enum Field {
    Vehicle(VehicleField),
    Tag,
    Ecu(EcuField),
}

impl Field {
    fn named(name: &str) -> Option<Self> {
        let vehicle = || VehicleField::named(name).map(Self::Vehicle);
        let tag = || (name == TAG).then_some(Self::Tag);
        vehicle().or_else(tag).or_else(|| EcuField::named(name).map(Self::Ecu))
    }

    fn version(self) -> Option<VersionField> {
        match self {
            Self::Ecu(field) => VersionField::named(field.name()),
            Self::Vehicle(_) | Self::Tag => None,
        }
    }

    fn part(self, test: TextTest) -> Part {
        match self {
            Self::Vehicle(field) => Part::Whole(Selection::Vehicle(VehicleTest { field, test })),
            Self::Tag => Part::Whole(Selection::Tag(test)),
            Self::Ecu(field) => Part::Ecu(vec![EcuTest::Text { field, test }]),
        }
    }
}

struct Parser<'q> {
    query: &'q str,
    lexer: Lexer<'q>,
    /// The token to look at, and where it begins.
    token: Token,
    position: usize,
    depth: usize,
    tests: usize,
}

impl<'q> Parser<'q> {
    fn new(query: &'q str) -> Result<Self, QueryError> {
        let mut lexer = Lexer::new(query);
        let (token, position) = lexer.next()?;
        Ok(Self { query, lexer, token, position, depth: 0, tests: 0 })
    }

    fn query(&mut self) -> Result<Selection, QueryError> {
        if self.took_keyword("all")? {
            return match self.token {
                Token::End => Ok(Selection::All),
                Token::Word(_) | Token::Quoted(_) | Token::Symbol(_) => {
                    Err(self.expected(ExpectedInQuery::NothingAfterAll))
                }
            };
        }
        let selection = self.either()?;
        match self.token {
            Token::End => Ok(selection),
            Token::Word(_) | Token::Quoted(_) | Token::Symbol(_) => {
                Err(self.expected(ExpectedInQuery::MoreOrEnd))
            }
        }
    }

    fn either(&mut self) -> Result<Selection, QueryError> {
        let first = self.both()?;
        let mut parts = vec![first];
        while self.took_keyword("or")? {
            parts.push(self.both()?);
        }
        Ok(sole(&mut parts).unwrap_or(Selection::Or(parts)))
    }

    fn both(&mut self) -> Result<Selection, QueryError> {
        let mut parts = vec![self.single()?];
        while self.took_keyword("and")? {
            let position = self.position;
            let ecu_before = parts.iter().any(|part| matches!(part, Part::Ecu(_)));
            match (parts.last_mut(), self.single()?) {
                (Some(Part::Ecu(tests)), Part::Ecu(more)) => tests.extend(more),
                (_, Part::Ecu(_)) if ecu_before => {
                    let (expected, found) = (ExpectedInQuery::EcuSideBySide, FoundInQuery::EcuApart);
                    return Err(QueryError::new(self.query, position, expected, found));
                }
                (_, part) => parts.push(part),
            }
        }
        let mut parts: Vec<Selection> = parts.into_iter().map(Selection::from).collect();
        Ok(sole(&mut parts).unwrap_or(Selection::And(parts)))
    }

    fn single(&mut self) -> Result<Part, QueryError> {
        if self.token.is_keyword("not") {
            self.enter()?;
            let part = self.single()?;
            self.leave();
            Ok(Part::Whole(Selection::Not(Box::new(part.into()))))
        } else if self.token.is_symbol("(") {
            self.enter()?;
            let selection = self.either()?;
            if !self.took_symbol(")")? {
                return Err(self.expected(ExpectedInQuery::MoreOrClosing));
            }
            self.leave();
            Ok(Part::Whole(selection))
        } else {
            self.comparison()
        }
    }

    /// Goes past a `not` or `(` into what it is about.
    fn enter(&mut self) -> Result<(), QueryError> {
        if self.depth == MAX_DEPTH {
            return Err(self.expected(ExpectedInQuery::Depth(MAX_DEPTH)));
        }
        self.depth = self.depth.saturating_add(1);
        self.advance()
    }

    fn leave(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    fn comparison(&mut self) -> Result<Part, QueryError> {
        let field = self.field()?;
        if let Some(order) = self.order() {
            let Some(field) = field.version() else { return Err(self.expected(operators(None))) };
            self.advance()?;
            let than = self.version()?;
            return Ok(Part::Ecu(vec![EcuTest::Version { field, order, than }]));
        }
        Ok(field.part(self.text_test(field)?))
    }

    fn field(&mut self) -> Result<Field, QueryError> {
        let Token::Word(word) = &self.token else { return Err(self.expected(ExpectedInQuery::Comparison)) };
        if is_reserved(word) {
            return Err(self.expected(ExpectedInQuery::Comparison));
        }
        let Some(field) = Field::named(word) else {
            let found = match nearest(word) {
                Some(meant) => FoundInQuery::UnknownField { word: shortened(word), meant },
                None => self.token.found(),
            };
            return Err(QueryError::new(self.query, self.position, ExpectedInQuery::Field, found));
        };
        if self.tests == MAX_TESTS {
            return Err(self.expected(ExpectedInQuery::Comparisons(MAX_TESTS)));
        }
        self.tests = self.tests.saturating_add(1);
        self.advance()?;
        Ok(field)
    }

    /// The operator at hand, if it is one of order.
    fn order(&self) -> Option<VersionOrder> {
        use VersionOrder::{Above, AtLeast, AtMost, Below};
        [Below, AtMost, Above, AtLeast].into_iter().find(|order| self.token.is_symbol(order.symbol()))
    }

    fn text_test(&mut self, field: Field) -> Result<TextTest, QueryError> {
        if self.took_symbol("=")? {
            self.text().map(TextTest::Is)
        } else if self.took_symbol("!=")? {
            self.text().map(TextTest::IsNot)
        } else if self.took_keyword("in")? {
            self.texts().map(TextTest::In)
        } else if self.took_keyword("not")? {
            self.keyword("in")?;
            self.texts().map(TextTest::NotIn)
        } else if self.took_keyword("starts")? {
            self.keyword("with")?;
            self.text().map(TextTest::StartsWith)
        } else if self.took_keyword("is")? {
            if self.took_keyword("known")? {
                Ok(TextTest::Known)
            } else if self.took_keyword("unknown")? {
                Ok(TextTest::Unknown)
            } else {
                Err(self.expected(ExpectedInQuery::KnownOrUnknown))
            }
        } else {
            Err(self.expected(operators(field.version())))
        }
    }

    fn texts(&mut self) -> Result<Vec<Text>, QueryError> {
        if !self.took_symbol("(")? {
            return Err(self.expected(ExpectedInQuery::ListOfTexts));
        }
        let mut texts = vec![self.text()?];
        while self.took_symbol(",")? {
            texts.push(self.text()?);
        }
        if self.took_symbol(")")? { Ok(texts) } else { Err(self.expected(ExpectedInQuery::MoreTexts)) }
    }

    fn text(&mut self) -> Result<Text, QueryError> {
        let Token::Quoted(text) = &self.token else { return Err(self.expected(ExpectedInQuery::QuotedText)) };
        let text = text.clone();
        self.advance()?;
        Ok(text)
    }

    fn version(&mut self) -> Result<SortableVersion, QueryError> {
        let position = self.position;
        let text = self.text()?;
        let found = FoundInQuery::Value(format!("\"{}\"", shortened(text.as_str())));
        SortableVersion::new(text)
            .ok_or_else(|| QueryError::new(self.query, position, ExpectedInQuery::Version, found))
    }

    fn keyword(&mut self, keyword: &'static str) -> Result<(), QueryError> {
        if self.took_keyword(keyword)? {
            Ok(())
        } else {
            Err(self.expected(ExpectedInQuery::Keyword(keyword)))
        }
    }

    fn took_keyword(&mut self, keyword: &str) -> Result<bool, QueryError> {
        let found = self.token.is_keyword(keyword);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn took_symbol(&mut self, symbol: &str) -> Result<bool, QueryError> {
        let found = self.token.is_symbol(symbol);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn advance(&mut self) -> Result<(), QueryError> {
        (self.token, self.position) = self.lexer.next()?;
        Ok(())
    }

    /// The error that the token at hand is not this.
    fn expected(&self, what: ExpectedInQuery) -> QueryError {
        QueryError::new(self.query, self.position, what, self.token.found())
    }
}

/// The only one, if there is no other.
fn sole(parts: &mut Vec<Selection>) -> Option<Selection> {
    if parts.len() == 1 { parts.pop() } else { None }
}

fn is_reserved(word: &str) -> bool {
    let reserved = ["all", "and", "or", "not", "in", "starts", "with", "is", "known", "unknown"];
    reserved.into_iter().any(|keyword| word.eq_ignore_ascii_case(keyword))
}

/// What can follow a field.
fn operators(version: Option<VersionField>) -> ExpectedInQuery {
    match version {
        Some(VersionField::SwVersion | VersionField::BootloaderVer) => ExpectedInQuery::OperatorOfVersion,
        None => ExpectedInQuery::Operator,
    }
}
