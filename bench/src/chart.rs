//! Pictures: lines over logarithmic axes, as SVG. A template of text, since a library for it would be larger than all
//! else here and is asked for two kinds of picture.

use crate::spread::Spread;

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

/// Where values are on a picture.
struct Places<'a> {
    chart: &'a Chart,
    x: Axis,
    y: Axis,
}

impl Places<'_> {
    fn x(&self, value: f64) -> f64 {
        let steps = self.chart.names.len().saturating_sub(1).max(1) as f64;
        let share = if self.chart.names.is_empty() {
            self.x.at(value)
        } else {
            value / steps
        };
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.at(value) * (HEIGHT - TOP - BOTTOM)
    }

    fn axes(&self, svg: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for tick in self.y.ticks() {
            line(svg, [(LEFT, self.y(tick)), (right, self.y(tick))], "#ddd");
            text(
                svg,
                (LEFT - 6.0, self.y(tick) + 4.0),
                "end",
                &tick.to_string(),
            );
        }
        let names = self.chart.names.iter().enumerate();
        let mut ticks: Vec<(f64, String)> =
            names.map(|(at, name)| (at as f64, escaped(name))).collect();
        if ticks.is_empty() {
            ticks.extend(self.x.ticks().map(|tick| (tick, tick.to_string())));
        }
        for (tick, name) in ticks {
            line(svg, [(self.x(tick), TOP), (self.x(tick), bottom)], "#ddd");
            text(svg, (self.x(tick), bottom + 18.0), "middle", &name);
        }
    }

    fn series(&self, svg: &mut String, series: &Series, colour: &str, place: u32) {
        let points = series.points.iter();
        let path =
            points.map(|(at, spread)| format!("{:.1},{:.1}", self.x(*at), self.y(spread.median)));
        let path: Vec<String> = path.collect();
        svg.push_str(&format!(
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>\n",
            path.join(" ")
        ));
        for (at, spread) in &series.points {
            let x = self.x(*at);
            line(
                svg,
                [(x, self.y(spread.min)), (x, self.y(spread.max))],
                colour,
            );
            let y = self.y(spread.median);
            svg.push_str(&format!(
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>\n"
            ));
        }
        let (right, at) = (WIDTH - RIGHT, TOP + 12.0 + f64::from(place) * 18.0);
        line(
            svg,
            [(right + 10.0, at - 4.0), (right + 28.0, at - 4.0)],
            colour,
        );
        text(svg, (right + 34.0, at), "start", &escaped(&series.name));
    }
}

impl Chart {
    /// The picture as a file.
    pub(crate) fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let places = Places {
            chart: self,
            x: Axis::over(points().map(|(x, _)| *x)),
            y: Axis::over(points().flat_map(|(_, spread)| [spread.min, spread.max])),
        };
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
        );
        let title = format!(
            "<tspan font-weight=\"bold\">{}</tspan>",
            escaped(&self.title)
        );
        text(&mut svg, (LEFT, 22.0), "start", &title);
        let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
        text(
            &mut svg,
            (middle, HEIGHT - 12.0),
            "middle",
            &escaped(&self.x),
        );
        let (middle, label) = (f64::midpoint(TOP, HEIGHT - BOTTOM), escaped(&self.y));
        svg.push_str(&format!(
            "<text transform=\"translate(16 {middle}) rotate(-90)\" text-anchor=\"middle\">{label}</text>\n"
        ));
        places.axes(&mut svg);
        let colours = COLOURS.iter().cycle();
        for ((series, colour), place) in self.series.iter().zip(colours).zip(0..) {
            places.series(&mut svg, series, colour, place);
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
