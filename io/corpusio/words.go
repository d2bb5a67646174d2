package corpusio

// What texts are made of. The order of sorted lists is that of Cassandra's sets and maps.

var adjectives = [...]string{"Golden", "Quiet", "Broken", "Weiße", "Вечерний", "静かな", "Último", "Naïve", "\"Quoted\"",
	"Old & new"}

var nouns = [...]string{"harbour", "market", "Brücke", "гора", "富士山", "كتاب", "playa", "🎬 scene", "tab\there",
	"café au lait"}

var sentences = [...]string{
	"Taken from the west side, early in the morning. ",
	"Nicht zur Veröffentlichung vor dem Jubiläum. ",
	"左から右へ読んでください。 ",
	"Licensed once; see the contract. ",
	"Contains \"quotes\", a back\\slash and <tags>. ",
	"Zweite Fassung, überarbeitet & gekürzt. ",
	"Crop to 4:3 before use. ",
	"\u200fטקסט מימין לשמאל\u200e. ",
}

var sortedTags = [...]string{"archive", "b/w", "city", "drone", "event", "food", "night", "portrait", "stock", "travel",
	"été", "空"}

var sortedAttributes = [...]string{"camera", "codec", "colour.space", "lens"}

var attributeValues = [...]string{"Canon R5", "h264", "sRGB", "50 mm", "", "неизвестно", "n/a"}

var licences = [...]string{"CC-BY-4.0", "editorial", "rights managed", "royalty free"}

var holders = [...]string{"Agence Été", "Müller & Söhne", "Northlight Ltd.", "東京写真"}

var sortedRegions = [...]string{"AT", "BR", "DE", "JP", "US"}

var formats = [...]string{"jpeg", "png", "mp4", "flac", "pdf"}

var renditionNames = [...]string{"thumb", "preview", "full"}

var places = [...]string{"Wien", "São Paulo", "東京", ""}
