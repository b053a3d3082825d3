//! The page as HTML.

use std::collections::BTreeMap;

use crate::catalog::Product;

const STYLE: &str = "
:root { color-scheme: light dark; --line: #8884; --accent: #0b6e75; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem; padding: 1.5rem; }
header, footer { display: flex; justify-content: space-between; align-items: baseline; gap: 1rem; }
h1 { font-size: 1.5rem; margin: 0; }
h2 { font-size: 1.1rem; margin: 0 0 .5rem; }
main { display: grid; gap: 1.5rem; grid-template-columns: 1fr 18rem; margin: 1.5rem 0; align-items: start; }
@media (max-width: 48rem) { main { grid-template-columns: 1fr; } }
ul { list-style: none; margin: 0; padding: 0; display: grid; gap: .75rem; }
.products { grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); }
.products li, aside { border: 1px solid var(--line); border-radius: .5rem; padding: 1rem; }
.products li { display: flex; flex-direction: column; }
.products p { margin: .25rem 0 1rem; flex: 1; opacity: .8; }
.row { display: flex; justify-content: space-between; align-items: center; gap: .5rem; }
button { background: var(--accent); border: 0; border-radius: .35rem; color: #fff; cursor: pointer; font: inherit;
  padding: .35rem .8rem; }
button:focus-visible { outline: 3px solid var(--line); outline-offset: 2px; }
.total { border-top: 1px solid var(--line); font-weight: 600; margin: .75rem 0; padding-top: .5rem; }
.quiet { opacity: .7; }
footer { font-size: .85rem; opacity: .7; }
";

/// Products and the cart; `None` when the cart does not answer.
pub(super) fn shop(
    products: &[Product],
    cart: Option<&BTreeMap<String, i64>>,
    version: &str,
) -> String {
    let mut body = String::from("<main><section aria-label=\"Products\"><ul class=\"products\">");
    for product in products {
        let Product {
            id,
            name,
            description,
            price_cents,
        } = product;
        let (id, name, description) = (escape(id), escape(name), escape(description));
        let price = price(*price_cents);
        body.push_str(&format!(
            "<li><h2>{name}</h2><p>{description}</p><form method=\"post\" action=\"/cart\" class=\"row\">\
             <strong>{price}</strong><button name=\"product\" value=\"{id}\" aria-label=\"Add {name} to the cart\">\
             Add</button></form></li>"
        ));
    }
    body.push_str("</ul></section><aside><h2>Cart</h2>");
    match cart {
        None => body.push_str("<p role=\"status\">The cart is away for the moment.</p>"),
        Some(cart) if cart.is_empty() => body.push_str("<p class=\"quiet\">Nothing in it yet.</p>"),
        Some(cart) => body.push_str(&lines(products, cart)),
    }
    body.push_str("</aside></main>");
    whole(&body, version)
}

/// Only a message.
pub(super) fn failure(message: &str, version: &str) -> String {
    whole(
        &format!("<main><p role=\"alert\">{}</p></main>", escape(message)),
        version,
    )
}

fn lines(products: &[Product], cart: &BTreeMap<String, i64>) -> String {
    let mut text = String::from("<ul>");
    let mut total = 0_i64;
    for (id, quantity) in cart {
        // A product may have left the catalog.
        let product = products.iter().find(|product| product.id == *id);
        let name = escape(product.map_or(id, |product| &product.name));
        let sum = product.map_or(0, |product| product.price_cents.saturating_mul(*quantity));
        total = total.saturating_add(sum);
        text.push_str(&format!(
            "<li class=\"row\"><span>{quantity} × {name}</span><span>{}</span></li>",
            price(sum)
        ));
    }
    let total = price(total);
    text.push_str(&format!(
        "</ul><p class=\"row total\"><span>Total</span><span>{total}</span></p>\
         <form method=\"post\" action=\"/cart/clear\"><button>Empty the cart</button></form>"
    ));
    text
}

fn whole(body: &str, version: &str) -> String {
    let version = escape(version);
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>The Chandlery</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><style>{STYLE}</style></head>\
         <body><header><h1>The Chandlery</h1><span class=\"quiet\">Everything for the boat</span></header>{body}\
         <footer><span>version {version}</span></footer></body></html>\n"
    )
}

/// `12.50 €`.
fn price(cents: i64) -> String {
    format!("{}.{:02} €", cents / 100, cents % 100)
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope() -> Product {
        Product {
            id: "rope".to_owned(),
            name: "<Rope> & \"more\"".to_owned(),
            description: "long".to_owned(),
            price_cents: 1205,
        }
    }

    #[test]
    fn the_cart_is_summed_up() {
        let cart = BTreeMap::from([("rope".to_owned(), 2), ("gone".to_owned(), 1)]);
        let page = shop(&[rope()], Some(&cart), "v2");
        assert!(page.contains("2 × &lt;Rope&gt; &amp; &quot;more&quot;"));
        assert!(page.contains("<span>Total</span><span>24.10 €</span>"));
        assert!(page.contains("1 × gone"));
        assert!(page.contains("version v2"));
        assert!(!page.contains("<Rope>"));
    }

    #[test]
    fn the_page_works_without_a_cart() {
        assert!(shop(&[rope()], None, "").contains("The cart is away"));
        assert!(shop(&[], Some(&BTreeMap::new()), "").contains("Nothing in it yet"));
        assert!(failure("<", "").contains("&lt;"));
    }
}
