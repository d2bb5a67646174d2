import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import java.io.BufferedOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.math.BigDecimal;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.DriverManager;
import java.time.Instant;
import java.time.LocalDateTime;
import java.time.LocalTime;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.iceberg.CatalogUtil;
import org.apache.iceberg.HasTableOperations;
import org.apache.iceberg.PartitionSpecParser;
import org.apache.iceberg.SchemaParser;
import org.apache.iceberg.Snapshot;
import org.apache.iceberg.SortOrderParser;
import org.apache.iceberg.StructLike;
import org.apache.iceberg.Table;
import org.apache.iceberg.catalog.Catalog;
import org.apache.iceberg.catalog.TableIdentifier;
import org.apache.iceberg.data.IcebergGenerics;
import org.apache.iceberg.data.Record;
import org.apache.iceberg.exceptions.NoSuchNamespaceException;
import org.apache.iceberg.exceptions.NoSuchTableException;
import org.apache.iceberg.expressions.Expressions;
import org.apache.iceberg.io.CloseableIterable;
import org.apache.iceberg.types.Type;
import org.apache.iceberg.types.Types;

/** Prints what an Iceberg table holds; `read-iceberg help` tells how to call it. */
public class ReadIceberg {
  public static void main(String[] args) throws Exception {
    try {
      run(args);
    } catch (IllegalArgumentException | NoSuchTableException | NoSuchNamespaceException e) {
      System.err.println("read-iceberg: " + e.getMessage());
      System.exit(2);
    }
  }

  private static void run(String[] args) throws Exception {
    String what = "--rows";
    Map<String, String> options = new HashMap<>();
    Map<String, String> properties = new HashMap<>();
    for (int i = 0; i < args.length; i++) {
      switch (args[i]) {
        case "--rows", "--count", "--snapshots", "--schema" -> what = args[i];
        case "--prop" -> {
          String[] pair = pair(args[++i]);
          properties.put(pair[0], pair[1]);
        }
        case "--catalog", "--warehouse", "--name", "--table", "--where" -> options.put(args[i], args[++i]);
        default -> throw new IllegalArgumentException("unknown option " + args[i]);
      }
    }
    Table table = load(options, properties);
    try (PrintStream out = new PrintStream(new BufferedOutputStream(System.out, 1 << 16), false, StandardCharsets.UTF_8)) {
      switch (what) {
        case "--rows" -> rows(table, options.get("--where"), out);
        case "--count" -> out.println(count(table, options.get("--where")));
        case "--snapshots" -> snapshots(table, out);
        default -> schema(table, out);
      }
      if (out.checkError()) {
        throw new IOException("cannot write to the standard output");
      }
    }
  }

  private static String[] pair(String s) {
    String[] pair = s.split("=", 2);
    if (pair.length < 2) {
      throw new IllegalArgumentException(s + ": want NAME=VALUE");
    }
    return pair;
  }

  private static Table load(Map<String, String> options, Map<String, String> properties) throws Exception {
    String catalog = required(options, "--catalog");
    TableIdentifier table = TableIdentifier.parse(required(options, "--table"));
    if (options.containsKey("--warehouse")) {
      properties.put("warehouse", options.get("--warehouse"));
    }
    properties.putIfAbsent("io-impl", "org.apache.iceberg.io.ResolvingFileIO");
    properties.putIfAbsent("s3.path-style-access", "true");
    properties.putIfAbsent("client.region", properties.getOrDefault("s3.region", "us-east-1"));
    properties.put("uri", catalog);
    String name = options.getOrDefault("--name", "rest");
    String type = "rest";
    if (!catalog.startsWith("http://") && !catalog.startsWith("https://")) {
      if (!Files.exists(Path.of(catalog))) {
        throw new IllegalArgumentException(catalog + " does not exist");
      }
      type = "jdbc";
      properties.put("uri", "jdbc:sqlite:" + catalog);
      properties.put("jdbc.busy_timeout", "10000");
      properties.put("init-catalog-tables", "false");
      properties.putIfAbsent("warehouse", "unused"); // it asks for one, and needs it for new tables only
      if (!options.containsKey("--name")) {
        name = onlyName(properties.get("uri"));
      }
    }
    properties.put("type", type);
    Catalog loaded = CatalogUtil.buildIcebergCatalog(name, properties, new org.apache.hadoop.conf.Configuration());
    return loaded.loadTable(table);
  }

  private static String required(Map<String, String> options, String option) {
    if (!options.containsKey(option)) {
      throw new IllegalArgumentException(option + " is missing");
    }
    return options.get(option);
  }

  /** The name of the one catalog in an SQLite file: each row of its tables carries it. */
  private static String onlyName(String uri) throws Exception {
    List<String> names = new ArrayList<>();
    try (var db = DriverManager.getConnection(uri);
        var found = db.createStatement().executeQuery("SELECT DISTINCT catalog_name FROM iceberg_tables")) {
      while (found.next()) {
        names.add(found.getString(1));
      }
    }
    if (names.size() != 1) {
      throw new IllegalArgumentException("the file has the catalogs " + names + ": choose one with --name");
    }
    return names.get(0);
  }

  private static CloseableIterable<Record> scan(Table table, String where) {
    var scan = IcebergGenerics.read(table);
    if (where != null) {
      String[] pair = pair(where);
      Type type = table.schema().findType(pair[0]);
      if (type == null) {
        throw new IllegalArgumentException("no column " + pair[0]);
      }
      // A literal of text is converted to the column's type.
      scan = scan.where(switch (type.typeId()) {
        case INTEGER, LONG -> Expressions.equal(pair[0], Long.parseLong(pair[1]));
        case BOOLEAN -> Expressions.equal(pair[0], Boolean.parseBoolean(pair[1]));
        case FLOAT, DOUBLE -> Expressions.equal(pair[0], Double.parseDouble(pair[1]));
        default -> Expressions.equal(pair[0], pair[1]);
      });
    }
    return scan.build();
  }

  private static long count(Table table, String where) throws IOException {
    long n = 0;
    try (CloseableIterable<Record> rows = scan(table, where)) {
      for (Record ignored : rows) {
        n++;
      }
    }
    return n;
  }

  private static void rows(Table table, String where, PrintStream out) throws IOException {
    Type type = table.schema().asStruct();
    JsonGenerator json = json(out);
    try (CloseableIterable<Record> rows = scan(table, where)) {
      for (Record row : rows) {
        value(json, type, row);
        json.writeRaw('\n');
      }
    }
    json.flush();
  }

  private static JsonGenerator json(PrintStream out) throws IOException {
    JsonGenerator json = new JsonFactory().createGenerator(out);
    json.enable(JsonGenerator.Feature.COMBINE_UNICODE_SURROGATES_IN_UTF8);
    return json.setRootValueSeparator(null);
  }

  private static void value(JsonGenerator json, Type type, Object value) throws IOException {
    if (value == null) {
      json.writeNull();
      return;
    }
    switch (type.typeId()) {
      case BOOLEAN -> json.writeBoolean((Boolean) value);
      case INTEGER -> json.writeNumber((Integer) value);
      case LONG -> json.writeNumber((Long) value);
      case FLOAT -> number(json, (Float) value);
      case DOUBLE -> number(json, (Double) value);
      case STRUCT -> {
        json.writeStartObject();
        List<Types.NestedField> fields = type.asStructType().fields();
        for (int i = 0; i < fields.size(); i++) {
          json.writeFieldName(fields.get(i).name());
          value(json, fields.get(i).type(), ((StructLike) value).get(i, Object.class));
        }
        json.writeEndObject();
      }
      case LIST -> {
        json.writeStartArray();
        for (Object element : (List<?>) value) {
          value(json, type.asListType().elementType(), element);
        }
        json.writeEndArray();
      }
      case MAP -> {
        json.writeStartObject();
        for (Map.Entry<?, ?> entry : ((Map<?, ?>) value).entrySet()) {
          json.writeFieldName(text(entry.getKey()));
          value(json, type.asMapType().valueType(), entry.getValue());
        }
        json.writeEndObject();
      }
      default -> json.writeString(text(value));
    }
  }

  /** JSON has no NaN and no infinities. */
  private static void number(JsonGenerator json, Number number) throws IOException {
    double value = number.doubleValue();
    if (Double.isNaN(value)) {
      json.writeString("NaN");
    } else if (Double.isInfinite(value)) {
      json.writeString(value > 0 ? "+Inf" : "-Inf");
    } else {
      json.writeNumber(number.toString());
    }
  }

  private static final DateTimeFormatter SECONDS = DateTimeFormatter.ofPattern("uuuu-MM-dd'T'HH:mm:ss");
  private static final DateTimeFormatter TIME = DateTimeFormatter.ofPattern("HH:mm:ss.nnnnnnnnn");

  private static String text(Object value) {
    if (value instanceof OffsetDateTime time) {
      return time(time.withOffsetSameInstant(ZoneOffset.UTC).toLocalDateTime()) + "Z";
    }
    if (value instanceof LocalDateTime time) {
      return time(time);
    }
    if (value instanceof LocalTime time) {
      return TIME.format(time);
    }
    if (value instanceof BigDecimal decimal) {
      return decimal.toPlainString();
    }
    if (value instanceof ByteBuffer buffer) {
      byte[] bytes = new byte[buffer.remaining()];
      buffer.duplicate().get(bytes);
      return Base64.getEncoder().encodeToString(bytes);
    }
    if (value instanceof byte[] bytes) {
      return Base64.getEncoder().encodeToString(bytes);
    }
    return value.toString();
  }

  /** Milliseconds, or microseconds where there are any. */
  private static String time(LocalDateTime time) {
    int micros = time.getNano() / 1000;
    return SECONDS.format(time)
        + (micros % 1000 == 0 ? String.format(".%03d", micros / 1000) : String.format(".%06d", micros));
  }

  private static void snapshots(Table table, PrintStream out) throws IOException {
    JsonGenerator json = json(out);
    for (Snapshot snapshot : table.snapshots()) {
      json.writeStartObject();
      json.writeNumberField("id", snapshot.snapshotId());
      if (snapshot.parentId() != null) {
        json.writeNumberField("parent", snapshot.parentId());
      }
      json.writeStringField("time", time(LocalDateTime.ofInstant(
          Instant.ofEpochMilli(snapshot.timestampMillis()), ZoneOffset.UTC)) + "Z");
      json.writeStringField("operation", snapshot.operation());
      json.writeBooleanField("current", snapshot.equals(table.currentSnapshot()));
      json.writeObjectFieldStart("summary");
      for (Map.Entry<String, String> entry : snapshot.summary().entrySet()) {
        json.writeStringField(entry.getKey(), entry.getValue());
      }
      json.writeEndObject();
      json.writeEndObject();
      json.writeRaw('\n');
    }
    json.flush();
  }

  private static void schema(Table table, PrintStream out) throws IOException {
    JsonGenerator json = json(out);
    json.writeStartObject();
    raw(json, "schema", SchemaParser.toJson(table.schema()));
    raw(json, "partition-spec", PartitionSpecParser.toJson(table.spec()));
    raw(json, "sort-order", SortOrderParser.toJson(table.sortOrder()));
    json.writeNumberField("format-version", ((HasTableOperations) table).operations().current().formatVersion());
    json.writeStringField("location", table.location());
    json.writeObjectFieldStart("properties");
    for (Map.Entry<String, String> entry : table.properties().entrySet()) {
      json.writeStringField(entry.getKey(), entry.getValue());
    }
    json.writeEndObject();
    json.writeEndObject();
    json.writeRaw('\n');
    json.flush();
  }

  private static void raw(JsonGenerator json, String field, String value) throws IOException {
    json.writeFieldName(field);
    json.writeRawValue(value);
  }
}
