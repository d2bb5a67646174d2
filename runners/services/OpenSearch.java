import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import org.opensearch.Version;
import org.opensearch.common.settings.Settings;
import org.opensearch.env.Environment;
import org.opensearch.node.InternalSettingsPreparer;
import org.opensearch.node.Node;
import org.opensearch.plugins.PluginInfo;

/**
 * A node of OpenSearch with the modules that Maven Central has. The official start needs each module in a folder of its own with
 * a descriptor and a security policy, which are only in the archive that Central lacks; modules given as classes need neither.
 */
public class OpenSearch extends Node {
  static final List<String> MODULES = List.of(
      "org.opensearch.transport.Netty4ModulePlugin", "org.opensearch.transport.Netty4Plugin",
      "org.opensearch.index.reindex.ReindexModulePlugin", "org.opensearch.index.reindex.ReindexPlugin",
      "org.opensearch.painless.PainlessModulePlugin", "org.opensearch.painless.PainlessPlugin",
      "org.opensearch.analysis.common.CommonAnalysisModulePlugin", "org.opensearch.analysis.common.CommonAnalysisPlugin",
      "org.opensearch.join.ParentJoinModulePlugin", "org.opensearch.join.ParentJoinPlugin");

  @SuppressWarnings("unchecked") // a collection of classes or, in 3.x, of PluginInfo
  OpenSearch(Environment environment, Collection<?> modules) {
    super(environment, (Collection) modules, true);
  }

  /** The modules in the form that this version's constructor takes. */
  static List<Object> modules() throws NoSuchMethodException {
    var constructor = Node.class.getDeclaredConstructor(Environment.class, Collection.class, boolean.class);
    boolean described = constructor.getGenericParameterTypes()[1].toString().contains("PluginInfo");
    var found = new ArrayList<Object>();
    for (String name : MODULES) {
      try {
        Class<?> module = Class.forName(name);
        found.add(!described ? module
            : new PluginInfo(name, "module", "NA", Version.CURRENT, "17", name, null, List.of(), false));
      } catch (ClassNotFoundException e) {
        // its name in another version
      }
    }
    return found;
  }

  public static void main(String[] args) throws Exception {
    Path conf = Path.of(args[0]);
    var settings = Settings.builder().loadFromPath(conf.resolve("opensearch.yml")).build();
    var environment = InternalSettingsPreparer.prepareEnvironment(settings, Map.of(), conf, () -> "node");
    var node = new OpenSearch(environment, modules());
    var done = new CountDownLatch(1);
    Runtime.getRuntime().addShutdownHook(new Thread(() -> {
      try {
        node.close();
      } catch (Exception e) {
        e.printStackTrace();
      }
      done.countDown();
    }));
    node.start();
    done.await();
  }
}
