//! Pictures: lines over logarithmic axes, as SVG. A template of text, since a library for it would be larger than all
//! else here and is asked for two kinds of picture.

use crate::report::Spread;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 160.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
/// Of which some are told apart by people who do not see all colours (Okabe and Ito).
const COLOURS: [&str; 7] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000",
];

/// One line: a name, and points with their spread.
#[derive(Debug)]
pub(crate) struct Series {
    name: String,
    points: Vec<(f64, Spread)>,
}

impl Series {
    pub(crate) fn new((name, points): (impl AsRef<str>, Vec<(f64, Spread)>)) -> Self {
        Self {
            name: name.as_ref().to_owned(),
            points,
        }
    }
}

/// A picture.
#[derive(Debug)]
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) x: String,
    pub(crate) y: String,
    /// Of places on the x axis, which is then in equal steps from 0.
    pub(crate) names: Vec<String>,
    pub(crate) series: Vec<Series>,
}

/// An axis from power of ten to power of ten.
struct Axis {
    low: i32,
    high: i32,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>) -> Self {
        let logs = values.filter(|value| *value > 0.0).map(f64::log10);
        let (low, high) = logs.fold((f64::MAX, f64::MIN), |(low, high), log| {
            (low.min(log), high.max(log))
        });
        if low > high {
            return Self { low: 0, high: 1 };
        }
        let low = low.floor() as i32;
        Self {
            low,
            high: (high.ceil() as i32).max(low + 1),
        }
    }

    /// From 0 to 1. What is not above zero has no logarithm, and stands at the low end.
    fn at(&self, value: f64) -> f64 {
        let log = value.max(10_f64.powi(self.low)).log10();
        (log - f64::from(self.low)) / f64::from(self.high - self.low)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        (self.low..=self.high).map(|power| 10_f64.powi(power))
    }
}

impl Chart {
    /// The picture as a file.
    pub(crate) fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let y_axis = Axis::over(points().flat_map(|(_, spread)| [spread.min, spread.max]));
        let x_axis = Axis::over(points().map(|(x, _)| *x));
        let steps = self.names.len().saturating_sub(1).max(1) as f64;
        let x = |value: f64| {
            let share = if self.names.is_empty() {
                x_axis.at(value)
            } else {
                value / steps
            };
            LEFT + share * (WIDTH - LEFT - RIGHT)
        };
        let y = |value: f64| HEIGHT - BOTTOM - y_axis.at(value) * (HEIGHT - TOP - BOTTOM);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
        );
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        text(
            &mut svg,
            (LEFT, 22.0),
            "start",
            &format!(
                "<tspan font-weight=\"bold\">{}</tspan>",
                escaped(&self.title)
            ),
        );
        text(
            &mut svg,
            (f64::midpoint(LEFT, right), HEIGHT - 12.0),
            "middle",
            &escaped(&self.x),
        );
        let (middle, label) = (f64::midpoint(TOP, bottom), escaped(&self.y));
        svg.push_str(&format!(
            "<text transform=\"translate(16 {middle}) rotate(-90)\" text-anchor=\"middle\">{label}</text>\n"
        ));
        for tick in y_axis.ticks() {
            line(&mut svg, [(LEFT, y(tick)), (right, y(tick))], "#ddd");
            text(
                &mut svg,
                (LEFT - 6.0, y(tick) + 4.0),
                "end",
                &tick.to_string(),
            );
        }
        let named = self
            .names
            .iter()
            .enumerate()
            .map(|(at, name)| (at as f64, escaped(name)));
        let ticks: Vec<(f64, String)> = if self.names.is_empty() {
            x_axis
                .ticks()
                .map(|tick| (tick, tick.to_string()))
                .collect()
        } else {
            named.collect()
        };
        for (tick, name) in ticks {
            line(&mut svg, [(x(tick), TOP), (x(tick), bottom)], "#ddd");
            text(&mut svg, (x(tick), bottom + 18.0), "middle", &name);
        }
        for ((series, colour), place) in self.series.iter().zip(COLOURS.iter().cycle()).zip(0_u32..)
        {
            let path: Vec<String> = series
                .points
                .iter()
                .map(|(at, spread)| format!("{:.1},{:.1}", x(*at), y(spread.median)))
                .collect();
            svg.push_str(&format!(
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>\n",
                path.join(" ")
            ));
            for (at, spread) in &series.points {
                line(
                    &mut svg,
                    [(x(*at), y(spread.min)), (x(*at), y(spread.max))],
                    colour,
                );
                let (x, y) = (x(*at), y(spread.median));
                svg.push_str(&format!(
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>\n"
                ));
            }
            let at = TOP + 12.0 + f64::from(place) * 18.0;
            line(
                &mut svg,
                [(right + 10.0, at - 4.0), (right + 28.0, at - 4.0)],
                colour,
            );
            text(
                &mut svg,
                (right + 34.0, at),
                "start",
                &escaped(&series.name),
            );
        }
        svg + "</svg>\n"
    }
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, text: &str) {
    svg.push_str(&format!(
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>\n"
    ));
}

fn line(svg: &mut String, [from, to]: [(f64, f64); 2], colour: &str) {
    svg.push_str(&format!(
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"/>\n",
        from.0, from.1, to.0, to.1
    ));
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_goes_from_power_to_power() {
        for (values, low, high) in [
            (&[3.0, 250.0][..], 0, 3),
            (&[0.02, 0.05], -2, -1),
            (&[10.0], 1, 2),
            (&[0.0], 0, 1),
            (&[], 0, 1),
        ] {
            let axis = Axis::over(values.iter().copied());
            assert_eq!((axis.low, axis.high), (low, high), "{values:?}");
        }
        let axis = Axis { low: 0, high: 2 };
        assert_eq!(
            [1.0, 10.0, 100.0, 0.0].map(|value| axis.at(value)),
            [0.0, 0.5, 1.0, 0.0]
        );
    }

    #[test]
    fn names_do_not_become_markup() {
        let spread = Spread {
            median: 1.0,
            min: 1.0,
            max: 2.0,
        };
        let svg = Chart {
            title: "a<b & c".to_owned(),
            x: String::new(),
            y: String::new(),
            names: vec!["p50".to_owned()],
            series: vec![Series::new(("herald=/x<y", vec![(0.0, spread)]))],
        }
        .svg();
        assert!(
            svg.contains("a&lt;b &amp; c") && svg.contains("herald=/x&lt;y"),
            "{svg}"
        );
        assert!(!svg.contains("NaN"), "{svg}");
    }
}
