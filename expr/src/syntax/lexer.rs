//! From text to tokens, by CEL's lexical grammar.

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Int(u64),
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    Name(String),
    /// `` `name` ``, only after a dot.
    Quoted(String),
    /// An operator or bracket.
    Symbol(&'static str),
    End,
}

pub(super) struct Positioned {
    pub(super) token: Token,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Where and why the text is no token.
pub(super) struct LexError {
    pub(super) offset: usize,
    pub(super) reason: String,
}

/// Longer ones first.
const SYMBOLS: &[&str] = &[
    "&&", "||", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "<", ">", "!", "?", ":", ",", ".",
    "(", ")", "[", "]", "{", "}",
];

/// Splits the text into tokens; the last is [`Token::End`].
pub(super) fn tokens(source: &str) -> Result<Vec<Positioned>, LexError> {
    let mut lexer = Lexer { source, offset: 0 };
    let mut found = Vec::new();
    loop {
        lexer.skip_blanks();
        let start = lexer.offset;
        let token = lexer.token().map_err(|reason| LexError {
            offset: start,
            reason,
        })?;
        let last = token == Token::End;
        found.push(Positioned {
            token,
            start,
            end: lexer.offset,
        });
        if last {
            return Ok(found);
        }
    }
}

/// The length of the text literal that begins the text, quotes included; `None` when it has no end. The text begins
/// with a quote.
pub(crate) fn quoted_length(text: &str, raw: bool) -> Option<usize> {
    let quote = text.chars().next()?;
    let triple: String = [quote; 3].iter().collect();
    let (opening, closing) = if text.starts_with(&triple) {
        (3, triple)
    } else {
        (1, quote.to_string())
    };
    let mut offset = opening;
    loop {
        let rest = text.get(offset..)?;
        if rest.starts_with(&closing) {
            return Some(offset + closing.len());
        }
        let character = rest.chars().next()?;
        if opening == 1 && (character == '\n' || character == '\r') {
            return None;
        }
        offset += character.len_utf8();
        if character == '\\' && !raw {
            offset += text.get(offset..)?.chars().next()?.len_utf8();
        }
    }
}

struct Lexer<'a> {
    source: &'a str,
    offset: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.offset..]
    }

    fn skip_blanks(&mut self) {
        loop {
            let trimmed = self
                .rest()
                .trim_start_matches([' ', '\t', '\n', '\r', '\x0c']);
            self.offset = self.source.len() - trimmed.len();
            if !trimmed.starts_with("//") {
                return;
            }
            self.offset += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    fn token(&mut self) -> Result<Token, String> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Ok(Token::End);
        };
        if let Some((prefix, raw, bytes)) = literal_prefix(rest) {
            return self.literal(prefix, raw, bytes);
        }
        if first.is_ascii_alphabetic() || first == '_' {
            return Ok(Token::Name(
                self.take_while(|c| c.is_ascii_alphanumeric() || c == '_')
                    .to_owned(),
            ));
        }
        let fraction = first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit());
        if first.is_ascii_digit() || fraction {
            return self.number();
        }
        if first == '`' {
            return self.quoted_name();
        }
        match SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            Some(symbol) => {
                self.offset += symbol.len();
                Ok(Token::Symbol(symbol))
            }
            None => Err(format!("unexpected character {first:?}")),
        }
    }

    fn take_while(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let length = rest.find(|c| !belongs(c)).unwrap_or(rest.len());
        self.offset += length;
        &rest[..length]
    }

    fn quoted_name(&mut self) -> Result<Token, String> {
        let rest = &self.rest()[1..];
        let length = rest.find('`').ok_or("the name has no closing backtick")?;
        let name = &rest[..length];
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_-./ ".contains(c);
        if name.is_empty() || !name.chars().all(allowed) {
            return Err("a name in backticks has letters, digits, blanks and _ - . /".to_owned());
        }
        self.offset += length + 2;
        Ok(Token::Quoted(name.to_owned()))
    }

    fn number(&mut self) -> Result<Token, String> {
        let rest = self.rest();
        if rest.starts_with("0x") || rest.starts_with("0X") {
            self.offset += 2;
            let digits = self.take_while(|c| c.is_ascii_hexdigit());
            let value = u64::from_str_radix(digits, 16)
                .map_err(|_| "the number is malformed or too large")?;
            return Ok(self.integer(value));
        }
        let mut length = digits(rest);
        let mut double = false;
        if rest[length..].starts_with('.') && digits(&rest[length + 1..]) > 0 {
            length += 1 + digits(&rest[length + 1..]);
            double = true;
        }
        if rest[length..].starts_with(['e', 'E']) {
            let sign = usize::from(rest[length + 1..].starts_with(['+', '-']));
            let exponent = digits(&rest[length + 1 + sign..]);
            if exponent > 0 {
                length += 1 + sign + exponent;
                double = true;
            }
        }
        self.offset += length;
        let text = &rest[..length];
        if double {
            let value: f64 = text.parse().map_err(|_| "the number is malformed")?;
            return if value.is_finite() {
                Ok(Token::Double(value))
            } else {
                Err("the number is too large".to_owned())
            };
        }
        let value = text.parse().map_err(|_| "the number is too large")?;
        Ok(self.integer(value))
    }

    fn integer(&mut self, value: u64) -> Token {
        if self.rest().starts_with(['u', 'U']) {
            self.offset += 1;
            return Token::Uint(value);
        }
        Token::Int(value)
    }

    fn literal(&mut self, prefix: usize, raw: bool, bytes: bool) -> Result<Token, String> {
        let text = &self.rest()[prefix..];
        let length = quoted_length(text, raw).ok_or("the text has no closing quote")?;
        self.offset += prefix + length;
        let quotes = if length >= 6 && (text.starts_with("\"\"\"") || text.starts_with("'''")) {
            3
        } else {
            1
        };
        let inner = &text[quotes..length - quotes];
        let content = if raw {
            inner.as_bytes().to_vec()
        } else {
            unescape(inner, bytes)?
        };
        if bytes {
            return Ok(Token::Bytes(content));
        }
        String::from_utf8(content)
            .map(Token::Text)
            .map_err(|_| "the text is not valid UTF-8".to_owned())
    }
}

fn digits(text: &str) -> usize {
    text.find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len())
}

/// The length of the prefix of a text literal, and whether it says raw and bytes; `None` when no literal begins here.
pub(crate) fn literal_prefix(text: &str) -> Option<(usize, bool, bool)> {
    // Only the beginning is looked at, since this is asked at every character.
    let mut raw = false;
    let mut bytes = false;
    for (length, character) in text.chars().take(3).enumerate() {
        match character {
            '"' | '\'' => return Some((length, raw, bytes)),
            'r' | 'R' if !raw => raw = true,
            'b' | 'B' if !bytes => bytes = true,
            _ => return None,
        }
    }
    None
}

fn unescape(text: &str, bytes: bool) -> Result<Vec<u8>, String> {
    let mut found = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(position) = rest.find('\\') {
        found.extend_from_slice(&rest.as_bytes()[..position]);
        let escape = &rest[position + 1..];
        let kind = escape.chars().next().ok_or("an escape has no end")?;
        let used = match kind {
            'x' | 'X' => number_escape(&escape[1..], 2, 16, bytes, &mut found).map(|n| n + 1),
            'u' => number_escape(&escape[1..], 4, 16, false, &mut found).map(|n| n + 1),
            'U' => number_escape(&escape[1..], 8, 16, false, &mut found).map(|n| n + 1),
            '0'..='3' => number_escape(escape, 3, 8, bytes, &mut found),
            _ => simple_escape(kind).map(|byte| {
                found.push(byte);
                1
            }),
        };
        rest = &escape[used.ok_or_else(|| format!("invalid escape \\{kind}"))?..];
    }
    found.extend_from_slice(rest.as_bytes());
    Ok(found)
}

fn simple_escape(kind: char) -> Option<u8> {
    Some(match kind {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 11,
        '\\' | '?' | '"' | '\'' | '`' => u8::try_from(kind).ok()?,
        _ => return None,
    })
}

/// Reads so many digits and writes the byte or the character they mean.
fn number_escape(
    text: &str,
    count: usize,
    radix: u32,
    byte: bool,
    found: &mut Vec<u8>,
) -> Option<usize> {
    let digits = text.get(..count)?;
    if !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let value = u32::from_str_radix(digits, radix).ok()?;
    if byte {
        found.push(u8::try_from(value).ok()?);
    } else {
        found.extend_from_slice(char::from_u32(value)?.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Some(count)
}
